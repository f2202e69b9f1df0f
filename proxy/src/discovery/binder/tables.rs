//! Makes large hash tables, one after the other, in a thread of its own: the control thread goes on with what comes next.

use std::{sync::mpsc, thread};

use crate::balance::Unmade;

/// See the module. The thread ends with this.
#[derive(Debug, Default)]
pub(super) struct TableMaker(Option<mpsc::Sender<Unmade>>);

impl TableMaker {
    /// Has `table` made.
    pub(super) fn make(&mut self, table: Unmade) {
        if self.0.is_none() {
            let (sender, tables) = mpsc::channel::<Unmade>();
            let thread = thread::Builder::new().name("tables".into());
            match thread.spawn(move || tables.iter().for_each(Unmade::make)) {
                Ok(_) => self.0 = Some(sender),
                Err(error) => {
                    tracing::warn!(%error, "no thread for hash tables, so the control thread makes them")
                }
            }
        }
        match &self.0 {
            Some(sender) => {
                if let Err(mpsc::SendError(table)) = sender.send(table) {
                    // The thread is gone.
                    self.0 = None;
                    table.make();
                }
            }
            None => table.make(),
        }
    }
}
