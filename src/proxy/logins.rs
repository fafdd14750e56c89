//! Clients that are about to log in: no more than a limit at once, and it is the slowest that has to go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The logins under way.
#[derive(Debug)]
pub struct Logins {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order they came.
    under_way: BTreeMap<u64, Arc<Notify>>,
}

/// One login; over when it is dropped.
#[derive(Debug)]
pub struct Login {
    logins: Arc<Logins>,
    number: u64,
}

impl Logins {
    /// At most so many at once.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one; it has to leave when it is notified. Where there are too many, that is the one that has taken longest.
    pub fn begin(self: &Arc<Self>) -> (Login, Arc<Notify>) {
        let leave = Arc::new(Notify::new());
        let mut state = self.lock();
        if state.under_way.len() >= self.limit
            && let Some((_, oldest)) = state.under_way.pop_first()
        {
            oldest.notify_one();
        }
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number, leave.clone());
        (Login { logins: self.clone(), number }, leave)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.logins.lock().under_way.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_to_go((_, leave): &(Login, Arc<Notify>)) -> bool {
        pin!(leave.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_slowest_has_to_go() {
        let logins = Logins::new(2);
        let (first, second) = (logins.begin(), logins.begin());
        drop(second);
        let third = logins.begin();
        assert!(!has_to_go(&first));
        let fourth = logins.begin();
        assert!(has_to_go(&first) && !has_to_go(&third) && !has_to_go(&fourth));
        drop((first, third, fourth));
        assert!(logins.lock().under_way.is_empty());
    }
}
