//! What a change of an image would rebuild, in which order, and how long that would take. Pure: who uses an image and what
//! tasks make is passed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Rule;
use crate::tracked_image::TrackedImage;
use crate::wave::{LastBuild, NodeTask};

/// Who uses which image, and what the last build of each task made.
#[derive(Debug, Clone, Default)]
pub struct ImageGraph {
    /// The tasks that need an image.
    pub users: BTreeMap<TrackedImage, Vec<ImageUse>>,
    /// The last successful run of each task that has one.
    pub builds: BTreeMap<NodeTask, LastBuild>,
}

/// A task that needs an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageUse {
    /// The task.
    pub task: NodeTask,
    /// The first rule that says that a change of the image does not rebuild the task; `None` if it does.
    pub rule: Option<Rule>,
}

/// What a change of an image would rebuild.
#[derive(Debug, Clone, PartialEq)]
pub struct Impact {
    /// The tasks, each after those that it waits for.
    pub tasks: Vec<AffectedTask>,
    /// The tasks that need one of the images and would not be rebuilt.
    pub others: Vec<UnaffectedTask>,
    /// How long the last builds of the tasks took together.
    pub total: Duration,
    /// How long the rebuild takes if nothing waits for a place: the longest way through the tasks.
    pub longest: Duration,
    /// How many of the tasks were never built, so that nothing is known of their time.
    pub without_history: usize,
}

/// A task that would be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedTask {
    /// The task.
    pub task: NodeTask,
    /// How many builds lead to it, from 1.
    pub depth: usize,
    /// The image through which it is reached first.
    pub through: TrackedImage,
    /// The tasks that it waits for.
    pub after: Vec<NodeTask>,
    /// Whether it waits for itself through other tasks. Tasks of a circle are built by name.
    pub is_in_circle: bool,
}

/// A task that would not be rebuilt.
#[derive(Debug, Clone, PartialEq)]
pub struct UnaffectedTask {
    /// The task.
    pub task: NodeTask,
    /// The image that it needs.
    pub through: TrackedImage,
    /// Why not.
    pub rule: Rule,
}

/// What a change of `base` would rebuild.
#[must_use]
pub fn impact(graph: &ImageGraph, base: &TrackedImage) -> Impact {
    let reached = Reached::from(graph, base);
    let tasks: Vec<&NodeTask> = reached.through.keys().collect();
    let place: BTreeMap<&NodeTask, usize> =
        tasks.iter().enumerate().map(|(place, task)| (*task, place)).collect();
    let mut ways = Ways::new(tasks.len());
    for (from, to) in &reached.edges {
        if let (Some(from), Some(to)) = (place.get(from), place.get(to)) {
            ways.add(*from, *to);
        }
    }
    let took = |task: usize| {
        let build = tasks.get(task).and_then(|task| graph.builds.get(*task));
        Duration::from_millis(build.map_or(0, |build| build.took))
    };
    let levels = ways.levels(took);
    let affected = tasks.iter().enumerate().map(|(place, task)| AffectedTask {
        task: (*task).clone(),
        depth: levels.depth[place],
        through: reached.through[*task].clone(),
        after: ways.before[place].iter().map(|before| tasks[*before].clone()).collect(),
        is_in_circle: levels.is_in_circle[place],
    });
    let mut affected: Vec<AffectedTask> = affected.collect();
    affected.sort_by(|a, b| (a.depth, &a.task).cmp(&(b.depth, &b.task)));
    let others = reached.others.into_iter();
    let others = others.filter(|other| !reached.through.contains_key(&other.task)).collect();
    Impact {
        others,
        total: (0..tasks.len()).map(took).sum(),
        longest: levels.longest,
        without_history: tasks.iter().filter(|it| !graph.builds.contains_key(**it)).count(),
        tasks: affected,
    }
}

/// The tasks to which a change leads.
#[derive(Default)]
struct Reached {
    /// The image through which each is reached first.
    through: BTreeMap<NodeTask, TrackedImage>,
    /// Which task waits for which: first the one that is waited for.
    edges: BTreeSet<(NodeTask, NodeTask)>,
    others: Vec<UnaffectedTask>,
}

impl Reached {
    fn from(graph: &ImageGraph, base: &TrackedImage) -> Self {
        let mut reached = Self::default();
        let policies: Vec<&TrackedImage> =
            graph.users.keys().filter(|image| image.pattern().is_some()).collect();
        let mut open: VecDeque<(Option<NodeTask>, TrackedImage)> = [(None, base.clone())].into();
        while let Some((maker, image)) = open.pop_front() {
            for user in graph.users.get(&image).into_iter().flatten() {
                if maker.as_ref().is_some_and(|maker| !follows(maker, &user.task)) {
                    continue;
                }
                if let Some(rule) = &user.rule {
                    reached.pass_over(user, &image, rule);
                    continue;
                }
                if let Some(maker) = &maker {
                    reached.edges.insert((maker.clone(), user.task.clone()));
                }
                if reached.through.contains_key(&user.task) {
                    continue;
                }
                reached.through.insert(user.task.clone(), image.clone());
                let made = graph.builds.get(&user.task).map_or(&[][..], |build| &build.made);
                let tags = made.iter().filter_map(TrackedImage::tag_of);
                let chosen = policies.iter().filter(|it| made.iter().any(|made| it.may_be(made)));
                let tracked = tags.chain(chosen.copied().cloned());
                open.extend(tracked.map(|image| (Some(user.task.clone()), image)));
            }
        }
        reached
    }

    fn pass_over(&mut self, user: &ImageUse, through: &TrackedImage, rule: &Rule) {
        let (task, through, rule) = (user.task.clone(), through.clone(), rule.clone());
        let other = UnaffectedTask { task, through, rule };
        if !self.others.contains(&other) {
            self.others.push(other);
        }
    }
}

/// Whether a task is rebuilt after one that makes an image which it needs: a wave does not leave its registry.
fn follows(maker: &NodeTask, user: &NodeTask) -> bool {
    maker.prefix == user.prefix && maker != user
}

/// Which task waits for which, by their places.
struct Ways {
    before: Vec<BTreeSet<usize>>,
    after: Vec<BTreeSet<usize>>,
}

/// Where each task stands in the order.
struct Levels {
    depth: Vec<usize>,
    is_in_circle: Vec<bool>,
    longest: Duration,
}

impl Ways {
    fn new(tasks: usize) -> Self {
        Self { before: vec![BTreeSet::new(); tasks], after: vec![BTreeSet::new(); tasks] }
    }

    fn add(&mut self, from: usize, to: usize) {
        self.after[from].insert(to);
        self.before[to].insert(from);
    }

    /// Tasks that wait for each other are on one level, and are built one by one.
    fn levels(&self, took: impl Fn(usize) -> Duration) -> Levels {
        let tasks = self.before.len();
        let mut levels = Levels {
            depth: vec![0; tasks],
            is_in_circle: vec![false; tasks],
            longest: Duration::ZERO,
        };
        let mut ends = vec![Duration::ZERO; tasks];
        for group in self.groups() {
            let waits_for = || group.iter().flat_map(|task| &self.before[*task]);
            let depth = waits_for().map(|task| levels.depth[*task]).max().unwrap_or(0) + 1;
            let begins = waits_for().map(|task| ends[*task]).max().unwrap_or_default();
            let end = begins + group.iter().map(|task| took(*task)).sum::<Duration>();
            levels.longest = levels.longest.max(end);
            for task in &group {
                levels.depth[*task] = depth;
                levels.is_in_circle[*task] = group.len() > 1;
                ends[*task] = end;
            }
        }
        levels
    }

    /// The tasks in groups that wait for each other, most of them alone, each group after those that it waits for: Kosaraju's
    /// algorithm.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut seen = vec![false; self.after.len()];
        let mut last_first = Vec::with_capacity(seen.len());
        for task in 0..seen.len() {
            last_first.extend(walk(task, &self.after, &mut seen));
        }
        let mut seen = vec![false; self.after.len()];
        let groups = last_first.into_iter().rev().map(|task| walk(task, &self.before, &mut seen));
        groups.filter(|group| !group.is_empty()).collect()
    }
}

/// What is reached from a task and was not seen before, each task after all that it leads to. Without recursion, so that
/// long chains do not use up the stack.
fn walk(from: usize, ways: &[BTreeSet<usize>], seen: &mut [bool]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut open = Vec::new();
    if !std::mem::replace(&mut seen[from], true) {
        open.push((from, ways[from].iter()));
    }
    while let Some((task, next)) = open.last_mut() {
        match next.next() {
            Some(next) if !std::mem::replace(&mut seen[*next], true) => {
                open.push((*next, ways[*next].iter()));
            }
            Some(_) => {}
            None => {
                order.push(*task);
                open.pop();
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunPrefix;
    use crate::timestamp::Timestamp;

    fn task(name: &str) -> NodeTask {
        NodeTask {
            prefix: RunPrefix::nth(0),
            task: format!("reg/{name}").parse().unwrap(),
            created: Timestamp::default(),
        }
    }

    fn image(name: &str) -> TrackedImage {
        format!("reg.test/{name}:1").parse().unwrap()
    }

    /// Tasks that each need these images, and make the image of their name in a number of seconds.
    fn graph(tasks: &[(&str, &[&str], u64)]) -> ImageGraph {
        let mut graph = ImageGraph::default();
        for (name, needs, seconds) in tasks {
            for need in *needs {
                let user = ImageUse { task: task(name), rule: None };
                graph.users.entry(image(need)).or_default().push(user);
            }
            graph.builds.insert(task(name), build(name, *seconds));
        }
        graph
    }

    fn build(name: &str, seconds: u64) -> LastBuild {
        LastBuild {
            run: "ca1".parse().unwrap(),
            used: Vec::new(),
            made: vec![image(name).tagged().unwrap()],
            took: seconds * 1000,
            at: Timestamp::default(),
        }
    }

    /// Each task as `depth name<the tasks before it`, with `!` if it is in a circle.
    fn order(impact: &Impact) -> Vec<String> {
        let line = |it: &AffectedTask| {
            let after: Vec<_> = it.after.iter().map(|it| it.task.name.to_string()).collect();
            let circle = if it.is_in_circle { "!" } else { "" };
            format!("{} {}{circle}<{}", it.depth, it.task.task.name, after.join(","))
        };
        impact.tasks.iter().map(line).collect()
    }

    #[test]
    fn what_follows_the_tags_of_a_repository_is_reached_through_those_that_match() {
        let mut graph = graph(&[("base", &["os"], 1)]);
        for (name, policy) in [("web", "reg.test/base:^1"), ("api", "reg.test/base:2.*")] {
            let user = ImageUse { task: task(name), rule: None };
            graph.users.insert(policy.parse().unwrap(), vec![user]);
        }
        let impact = impact(&graph, &image("os"));
        assert_eq!(order(&impact), ["1 base<", "2 web<base"]);
        assert_eq!(impact.tasks[1].through.to_string(), "reg.test/base:^1");
    }

    #[test]
    fn a_chain_is_rebuilt_one_after_another() {
        let graph =
            graph(&[("web", &["node"], 30), ("node", &["os"], 20), ("base", &["other"], 1)]);
        let impact = impact(&graph, &image("os"));
        assert_eq!(order(&impact), ["1 node<", "2 web<node"]);
        assert_eq!(impact.tasks[1].through, image("node"));
        assert_eq!((impact.total.as_secs(), impact.longest.as_secs()), (50, 50));
    }

    #[test]
    fn a_diamond_takes_as_long_as_its_longer_side() {
        let graph = graph(&[
            ("base", &["os"], 10),
            ("left", &["base"], 5),
            ("right", &["base"], 50),
            ("top", &["left", "right", "os"], 7),
        ]);
        let impact = impact(&graph, &image("os"));
        assert_eq!(order(&impact), ["1 base<", "2 left<base", "2 right<base", "3 top<left,right"]);
        assert_eq!(impact.tasks[3].through, image("os"), "the nearest image");
        assert_eq!((impact.total.as_secs(), impact.longest.as_secs()), (72, 67));
    }

    #[test]
    fn a_circle_is_marked_and_what_follows_comes_after_it() {
        let graph = graph(&[
            ("aa", &["os", "bb"], 1),
            ("bb", &["aa"], 2),
            ("cc", &["bb"], 4),
            ("own", &["os", "own"], 8),
        ]);
        let impact = impact(&graph, &image("os"));
        assert_eq!(order(&impact), ["1 aa!<bb", "1 bb!<aa", "1 own<", "2 cc<bb"]);
        assert_eq!(impact.longest.as_secs(), 8);
    }

    #[test]
    fn tasks_that_do_not_count_are_told_with_the_rule_and_not_followed() {
        let mut graph = graph(&[("node", &["os"], 1), ("web", &["node"], 1)]);
        graph.users.get_mut(&image("os")).unwrap()[0].rule = Some(Rule::TaskDisabled);
        let told = impact(&graph, &image("os"));
        assert_eq!(told.tasks, []);
        let (task, through) = (task("node"), image("os"));
        assert_eq!(told.others, [UnaffectedTask { task, through, rule: Rule::TaskDisabled }]);
        assert_eq!(order(&impact(&graph, &image("node"))), ["1 web<"], "from there on");
    }

    #[test]
    fn a_task_that_another_image_reaches_is_not_told_as_unaffected() {
        let mut graph = graph(&[("node", &["os"], 1), ("web", &["os", "node"], 1)]);
        graph.users.get_mut(&image("os")).unwrap()[1].rule = Some(Rule::OnlyBuildtime);
        let told = impact(&graph, &image("os"));
        assert_eq!(order(&told), ["1 node<", "2 web<node"]);
        assert_eq!(told.others, []);
    }

    #[test]
    fn what_follows_stays_within_a_registry() {
        let mut graph = graph(&[("node", &["os"], 1)]);
        let elsewhere = NodeTask { prefix: RunPrefix::nth(1), ..task("web") };
        for need in ["os", "node"] {
            let user = ImageUse { task: elsewhere.clone(), rule: None };
            graph.users.entry(image(need)).or_default().push(user);
        }
        let impact = impact(&graph, &image("os"));
        assert_eq!(order(&impact), ["1 node<", "1 web<"]);
        assert_eq!(impact.without_history, 1);
    }

    #[test]
    fn an_image_that_nobody_uses_rebuilds_nothing() {
        let impact = impact(&graph(&[("web", &["os"], 1)]), &image("web"));
        assert_eq!((order(&impact), impact.total, impact.longest), Default::default());
    }

    #[test]
    fn a_thousand_tasks_are_ordered_in_a_chain_and_side_by_side() {
        let names: Vec<String> = (0..1000).map(|number| format!("t{number:04}")).collect();
        let mut chain = ImageGraph::default();
        let mut wide = ImageGraph::default();
        for (number, name) in names.iter().enumerate() {
            let user = ImageUse { task: task(name), rule: None };
            let before = number.checked_sub(1).map_or("os", |before| &names[before]);
            chain.users.insert(image(before), vec![user.clone()]);
            wide.users.entry(image("os")).or_default().push(user);
            chain.builds.insert(task(name), build(name, 1));
            wide.builds.insert(task(name), build(name, 1));
        }
        let chain = impact(&chain, &image("os"));
        let depths: Vec<usize> = chain.tasks.iter().map(|task| task.depth).collect();
        assert_eq!(depths, (1..=1000).collect::<Vec<_>>());
        assert_eq!(chain.longest.as_secs(), 1000);
        let wide = impact(&wide, &image("os"));
        assert!(wide.tasks.iter().all(|task| task.depth == 1) && wide.tasks.len() == 1000);
        assert_eq!((wide.total.as_secs(), wide.longest.as_secs()), (1000, 1));
    }
}
