//! Says on a terminal that an answer is still awaited: nobody has to guess whether a command does something.

use std::{
    io::{self, IsTerminal as _, Write},
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, timeout};

/// From when on it is said, and how often.
const EVERY: Duration = Duration::from_secs(1);

/// What `work` comes to. If that takes more than a second and standard error is a terminal, it says there for how long already.
/// Once it has come, nothing is left of that.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    let error = io::stderr();
    if error.is_terminal() { told(work, error).await } else { work.await }
}

/// The same of `work` that may rest for as long as `rest` although nothing is wrong: that is waited for in silence.
pub(crate) async fn patiently_after<T>(rest: Duration, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(rest, &mut work).await {
        return done;
    }
    patiently(work).await
}

async fn told<T>(work: impl Future<Output = T>, mut terminal: impl Write) -> T {
    let (mut work, began, mut is_told) = (pin!(work), Instant::now(), false);
    loop {
        if let Ok(done) = timeout(EVERY, &mut work).await {
            if is_told {
                write(&mut terminal, "\r\x1b[K");
            }
            return done;
        }
        is_told = true;
        write(&mut terminal, &format!("\rno answer for {} s yet\x1b[K", began.elapsed().as_secs()));
    }
}

/// A terminal that takes nothing is no reason to fail.
fn write(terminal: &mut impl Write, text: &str) {
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_at_once_is_waited_for_in_silence() {
        let mut terminal = Vec::new();
        assert_eq!(told(async { 7 }, &mut terminal).await, 7);
        assert!(terminal.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_waited_for_with_words_that_are_gone_in_the_end() {
        let mut terminal = Vec::new();
        let work = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            7
        };
        assert_eq!(told(work, &mut terminal).await, 7);
        let text = String::from_utf8(terminal).expect("text");
        assert_eq!(text.matches("no answer for").count(), 2, "{text:?}");
        assert!(text.ends_with("\r\x1b[K"), "{text:?}");
    }
}
