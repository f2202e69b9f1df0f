//! Look-ups that workers ask for and the control thread makes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use selvedge_ops::{ResolveError, Resolver};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// How long a worker waits: longer than a look-up may take.
const PATIENCE: Duration = Duration::from_secs(6);
/// The most questions that wait to be taken up, and the most that are looked up at once.
const MAX_QUESTIONS: usize = 1024;

/// A name whose addresses a worker wants.
#[derive(Debug)]
pub struct Question {
    name: String,
    answer: oneshot::Sender<Result<Vec<IpAddr>, ResolveError>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The control thread is overwhelmed with names, or has ended.
    #[error("was not looked up within {PATIENCE:?}: too many other names are being looked up")]
    Busy,
}

/// A worker's way to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asker {
    questions: mpsc::Sender<Question>,
}

impl Asker {
    /// A way to ask, and what is asked, for [`answer`].
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        (Self { questions }, asked)
    }

    /// The addresses of `name`: IPv4 if it has any, otherwise IPv6.
    ///
    /// # Errors
    /// If it has none, or the answer takes too long.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, AskError> {
        let (answer, answered) = oneshot::channel();
        let question = Question { name: name.to_owned(), answer };
        let asked = async {
            self.questions.send(question).await.ok()?;
            answered.await.ok()
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await.ok().flatten().ok_or(AskError::Busy)?;
        Ok(answer?)
    }
}

/// Answers what is asked, for as long as it is polled. A name that takes long holds up no other.
pub async fn answer(resolver: Arc<Resolver>, mut asked: mpsc::Receiver<Question>) {
    let mut looking_up = JoinSet::new();
    loop {
        tokio::select! {
            Some(Question { name, answer }) = asked.recv(), if looking_up.len() < MAX_QUESTIONS => {
                let resolver = Arc::clone(&resolver);
                looking_up.spawn(async move {
                    let found = resolver.addresses(&name).await.map(|resolved| resolved.addresses);
                    // Nobody waits any more if the request was given up.
                    let _ = answer.send(found);
                });
            }
            Some(_) = looking_up.join_next() => {}
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_ops::ResolverArgs;

    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_with_addresses_or_the_reason_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let args = ResolverArgs {
            resolv_conf: directory.path().join("none"),
            hosts_file: directory.path().join("hosts"),
        };
        std::fs::write(&args.hosts_file, "10.0.0.1 reviews\n").unwrap();
        let (asker, asked) = Asker::new();
        tokio::spawn(answer(Arc::new(Resolver::new(args)), asked));

        assert_eq!(asker.addresses("reviews").await, Ok(vec!["10.0.0.1".parse().unwrap()]));
        let error = asker.addresses("ratings").await.unwrap_err();
        assert!(error.to_string().contains("names no DNS server"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (asker, _asked) = Asker::new();

        assert_eq!(asker.addresses("reviews").await, Err(AskError::Busy));
    }
}
