//! Walks a graph: begins each node when those that it waits for have ended well, some at once.
//!
//! Pure apart from the futures that it is given. Knows no steps and no engine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// Runs `execute` for each node of the graph; `after` has for each node those that must end before it. At most `most`
/// run at once; of those that could begin, the first in the list begins first.
///
/// The first failure ends the walk: the others are dropped as soon as `may_drop` resolves, and none begins meanwhile.
///
/// # Errors
/// The first failure.
pub(crate) async fn walk<E, Node, Drop>(
    after: &[&[usize]],
    most: usize,
    execute: impl Fn(usize) -> Node,
    may_drop: impl Fn() -> Drop,
) -> Result<(), E>
where
    Node: Future<Output = Result<(), E>>,
    Drop: Future<Output = ()>,
{
    let mut waits_for: Vec<usize> = after.iter().map(|others| others.len()).collect();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); after.len()];
    for (node, others) in after.iter().enumerate() {
        for other in *others {
            if let Some(nodes) = before.get_mut(*other) {
                nodes.push(node);
            }
        }
    }
    let roots = waits_for.iter().enumerate().filter(|(_, others)| **others == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = roots.map(|(node, _)| Reverse(node)).collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < most
            && let Some(Reverse(node)) = ready.pop()
        {
            let execution = execute(node);
            running.push(async move { (node, execution.await) });
        }
        let Some((node, ended)) = running.next().await else { return Ok(()) };
        if let Err(error) = ended {
            let others = async { while running.next().await.is_some() {} };
            tokio::select! {
                biased;
                () = others => {}
                () = may_drop() => {}
            }
            return Err(error);
        }
        for next in before.get(node).into_iter().flatten() {
            if let Some(others) = waits_for.get_mut(*next) {
                *others -= 1;
                if *others == 0 {
                    ready.push(Reverse(*next));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// What happened, in order.
    #[derive(Default)]
    struct Told(RefCell<Vec<String>>);

    impl Told {
        fn tell(&self, what: &str, node: usize) {
            self.0.borrow_mut().push(format!("{what}{node}"));
        }

        fn all(&self) -> String {
            self.0.borrow().join(" ")
        }
    }

    /// A node that ends after some seconds, and tells when it is dropped before.
    async fn node(
        told: &Told,
        node: usize,
        seconds: u64,
        ends: Result<(), usize>,
    ) -> Result<(), usize> {
        struct Dropped<'a>(&'a Told, usize, bool);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.tell(if self.2 { "-" } else { "!" }, self.1);
            }
        }
        told.tell("+", node);
        let mut dropped = Dropped(told, node, false);
        sleep(Duration::from_secs(seconds)).await;
        dropped.2 = true;
        ends
    }

    #[tokio::test(start_paused = true)]
    async fn branches_overlap_and_a_node_begins_after_those_that_it_waits_for() {
        let told = Told::default();
        let began = Instant::now();
        let after: [&[usize]; 4] = [&[], &[], &[0, 1], &[2]];
        let seconds = [2, 3, 1, 1];
        let walked = walk(&after, 8, |n| node(&told, n, seconds[n], Ok(())), || async {}).await;
        assert_eq!(walked, Ok(()));
        assert_eq!(told.all(), "+0 +1 -0 -1 +2 -2 +3 -3");
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_may_wait_for_one_that_stands_behind_it() {
        let told = Told::default();
        let after: [&[usize]; 2] = [&[1], &[]];
        walk(&after, 8, |n| node(&told, n, 1, Ok(())), || async {}).await.unwrap();
        assert_eq!(told.all(), "+1 -1 +0 -0");
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_so_many_run_at_once_in_the_order_of_the_list() {
        let told = Told::default();
        let after: [&[usize]; 4] = [&[]; 4];
        let seconds = [3, 1, 4, 1];
        walk(&after, 2, |n| node(&told, n, seconds[n], Ok(())), || async {}).await.unwrap();
        assert_eq!(told.all(), "+0 +1 -1 +2 -0 +3 -3 -2");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_drops_the_others_and_begins_none() {
        let told = Told::default();
        let after: [&[usize]; 4] = [&[], &[], &[1], &[0]];
        let ends = [Ok(()), Err(7), Ok(()), Ok(())];
        let seconds = [9, 1, 1, 1];
        let walked = walk(&after, 8, |n| node(&told, n, seconds[n], ends[n]), || async {}).await;
        assert_eq!(walked, Err(7));
        assert_eq!(told.all(), "+0 +1 -1 !0");
    }

    #[tokio::test(start_paused = true)]
    async fn what_must_not_be_dropped_ends_first() {
        let told = Told::default();
        let after: [&[usize]; 3] = [&[], &[], &[]];
        let ends = [Ok(()), Err(7), Ok(())];
        let seconds = [3, 1, 9];
        let may_drop = || sleep(Duration::from_secs(4));
        let walked = walk(&after, 8, |n| node(&told, n, seconds[n], ends[n]), may_drop).await;
        assert_eq!(walked, Err(7));
        assert_eq!(told.all(), "+0 +1 +2 -1 -0 !2");
    }
}
