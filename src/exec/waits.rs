//! Deadlocks over shards. A server sees only who waits for whom on itself; a circle that leads over two of them it cannot see.

use super::Shard;

/// A transaction whose statement has been running for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// Tells it, and its statement, apart from all others of all instances.
    pub id: String,
    /// Its backends.
    pub backends: Vec<(Shard, i32)>,
}

/// On a shard, the first backend waits for the second, perhaps through others.
pub type Wait = (Shard, i32, i32);

/// The transactions that have to end for the others to go on: of each circle the one with the greatest id, so that
/// all who look choose the same.
pub fn victims(waiters: &[Waiter], waits: &[Wait]) -> Vec<String> {
    let holder = |shard: Shard, pid: i32| waiters.iter().position(|waiter| waiter.backends.contains(&(shard, pid)));
    let mut edges: Vec<(usize, usize)> = waits
        .iter()
        .filter_map(|(shard, waits, holds)| Some((holder(*shard, *waits)?, holder(*shard, *holds)?)))
        .filter(|(from, to)| from != to)
        .collect();
    // One that waits for itself, by way of two databases of one server, goes on by no other's end.
    let waits_for_itself = |waiter: &&Waiter| {
        waits.iter().any(|(shard, waits, holds)| {
            waits != holds && [waits, holds].into_iter().all(|pid| waiter.backends.contains(&(*shard, *pid)))
        })
    };
    let mut chosen: Vec<String> = waiters.iter().filter(waits_for_itself).map(|waiter| waiter.id.clone()).collect();
    loop {
        let in_circle = (0..waiters.len()).filter(|&node| reaches(&edges, node, node));
        let Some(victim) = in_circle.max_by_key(|&node| waiters.get(node).map(|waiter| &waiter.id)) else {
            return chosen;
        };
        edges.retain(|(from, to)| *from != victim && *to != victim);
        chosen.extend(waiters.get(victim).map(|waiter| waiter.id.clone()));
    }
}

fn reaches(edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let (mut todo, mut seen) = (vec![from], Vec::new());
    while let Some(node) = todo.pop() {
        for (_, next) in edges.iter().filter(|(from, _)| *from == node) {
            if *next == to {
                return true;
            }
            if !seen.contains(next) {
                seen.push(*next);
                todo.push(*next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(id: &str, backends: &[(Shard, i32)]) -> Waiter {
        Waiter { id: id.into(), backends: backends.to_vec() }
    }

    #[test]
    fn one_of_each_circle_is_chosen() {
        let waiters = [
            waiter("a", &[(0, 1), (1, 1)]),
            waiter("b", &[(0, 2), (1, 2)]),
            waiter("c", &[(0, 3), (1, 3), (2, 3)]),
            waiter("d", &[(1, 4), (2, 4)]),
        ];
        // b waits for a; that is no circle. Nor is a backend that waits for one of its own transaction.
        assert!(victims(&waiters, &[(0, 2, 1), (1, 2, 1), (1, 2, 2)]).is_empty());
        assert_eq!(victims(&waiters, &[(0, 2, 1), (1, 1, 2)]), ["b"]);
        // The same numbers on other shards are other backends.
        assert!(victims(&waiters, &[(0, 2, 1), (1, 1, 9)]).is_empty());
        let over_three = [(0, 1, 2), (1, 2, 3), (0, 3, 1)];
        assert_eq!(victims(&waiters, &over_three), ["c"]);
        let two = [(0, 2, 1), (1, 1, 2), (2, 3, 4), (1, 4, 3)];
        assert_eq!(victims(&waiters, &two), ["d", "b"]);
    }

    #[test]
    fn who_waits_for_itself_is_chosen() {
        let waiters = [waiter("a", &[(0, 1), (0, 2)]), waiter("b", &[(0, 3), (1, 3)])];
        assert_eq!(victims(&waiters, &[(0, 2, 1)]), ["a"]);
        assert!(victims(&waiters, &[(0, 2, 2), (0, 3, 1), (1, 3, 1)]).is_empty());
    }

    #[test]
    fn what_hangs_on_a_circle_is_left_alone() {
        let waiters = [waiter("a", &[(0, 1), (1, 1)]), waiter("b", &[(0, 2), (1, 2)]), waiter("z", &[(0, 3), (1, 3)])];
        assert_eq!(victims(&waiters, &[(0, 1, 2), (1, 2, 1), (0, 3, 1)]), ["b"]);
    }
}
