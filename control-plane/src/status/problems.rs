//! What is wrong with the documents, as it is now.

use std::{collections::HashSet, path::Path, sync::Arc};

use tokio::sync::watch;

use crate::{
    compile::Attached,
    problem::{DocumentName, Problem, Severity},
    resources::Object,
};

/// The problems of the configuration as it is now.
#[derive(Debug, Default)]
pub struct Problems {
    now: watch::Sender<Arc<Verdicts>>,
}

/// What became of every document, at one moment.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The documents whose status can be written in the cluster.
    pub objects: Arc<Vec<Object>>,
    /// Every problem.
    pub problems: Arc<Vec<Problem>>,
    /// The Gateways that are ours with the routes of their listeners, and the ancestors of policies.
    pub attached: Arc<Attached>,
}

/// What makes two problems one and the same: everything but the line, which moves with every edit above.
type ProblemIdentity<'a> = (Severity, Option<&'a DocumentName>, Option<&'a Path>, &'a str, &'a str);

fn same(problem: &Problem) -> ProblemIdentity<'_> {
    let (document, path) = (problem.document.as_ref(), problem.path.as_deref());
    (problem.severity, document, path, &problem.field, &problem.message)
}

impl Problems {
    /// Replaces all problems; logs those that are new, and those that are gone, once each.
    pub fn replace(&self, problems: Vec<Problem>, objects: &Arc<Vec<Object>>, attached: &Arc<Attached>) {
        let (problems, attached) = (Arc::new(problems), Arc::clone(attached));
        let newest = Verdicts { objects: Arc::clone(objects), problems: Arc::clone(&problems), attached };
        let newest = Arc::new(newest);
        let before = Arc::clone(&self.now.send_replace(newest).problems);
        let known: HashSet<ProblemIdentity<'_>> = before.iter().map(same).collect();
        let still: HashSet<ProblemIdentity<'_>> = problems.iter().map(same).collect();
        problems.iter().filter(|problem| !known.contains(&same(problem))).for_each(appeared);
        for problem in before.iter().filter(|problem| !still.contains(&same(problem))) {
            tracing::info!("solved: {problem}");
        }
    }

    /// All of them.
    pub fn now(&self) -> Arc<Vec<Problem>> {
        Arc::clone(&self.now.borrow().problems)
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Verdicts>> {
        self.now.subscribe()
    }
}

fn appeared(problem: &Problem) {
    match problem.severity {
        Severity::Error => tracing::error!("{problem}"),
        Severity::Warning => tracing::warn!("{problem}"),
        Severity::NotActedOn => tracing::info!("not acted on: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn problem(line: u64, message: &str) -> Problem {
        let problem = Problem::with_path(Severity::Error, Path::new("a.yaml"), message);
        Problem { line: Some(line), ..problem }
    }

    #[test]
    fn a_problem_is_logged_when_it_appears_and_when_it_is_solved() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        let problems = Problems::default();
        let none = Arc::default();

        tracing::subscriber::with_default(subscriber, || {
            problems.replace(vec![problem(3, "no such host")], &none, &Arc::default());
            problems.replace(
                vec![problem(4, "no such host"), problem(9, "no such subset")],
                &none,
                &Arc::default(),
            );
            problems.replace(vec![problem(9, "no such subset")], &none, &Arc::default());
        });

        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = log.lines().map(|line| line.trim().split_once(": ").unwrap().1).collect();
        assert_eq!(
            lines,
            ["a.yaml:3: no such host", "a.yaml:9: no such subset", "solved: a.yaml:4: no such host"]
        );
        assert_eq!(problems.now().len(), 1);
    }
}
