//! Draws which steps wait for which: a column of dots with a lane for each dependency.

/// More lanes than a terminal shows beside the text.
const MOST_LANES: usize = 16;

/// What is drawn at the left of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) step: usize,
    /// Beside the step's first line.
    pub(crate) dot: String,
    /// Beside its other lines.
    pub(crate) beside: String,
    /// Lines of their own before and after the step.
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// Draws steps, of which each waits for the steps `after` it names. The order is that of the file, but for steps that
/// wait for later ones. Without lanes if there are too many of them.
pub(crate) fn draw(after: &[Vec<usize>]) -> Vec<Row> {
    let order = order(after);
    let mut lanes = Lanes::default();
    let rows: Option<Vec<Row>> = order.iter().map(|step| lanes.row(*step, after)).collect();
    rows.unwrap_or_else(|| {
        let row = |step| Row {
            step,
            dot: "●".to_owned(),
            beside: " ".to_owned(),
            before: None,
            after: None,
        };
        order.iter().map(|step| row(*step)).collect()
    })
}

/// The steps so that each comes after all that it waits for.
fn order(after: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(after.len());
    let mut placed = vec![false; after.len()];
    while order.len() < after.len() {
        let ready = (0..after.len())
            .find(|step| !placed[*step] && after[*step].iter().all(|other| placed[*other]));
        let Some(step) = ready else { break };
        placed[step] = true;
        order.push(step);
    }
    order
}

/// For each lane the step that it leads to.
#[derive(Default)]
struct Lanes {
    to: Vec<Option<usize>>,
}

impl Lanes {
    /// `None` if there are too many lanes.
    fn row(&mut self, step: usize, after: &[Vec<usize>]) -> Option<Row> {
        let own = self.places(|to| to == Some(step));
        let before = (own.len() > 1).then(|| self.connect(&own, '┘'));
        let lane = own.first().copied().unwrap_or_else(|| self.free());
        own.iter().for_each(|other| self.to[*other] = None);
        self.to[lane] = Some(step);
        let dot = self.line(|at| if at == lane { '●' } else { '│' });

        let followers = (0..after.len()).filter(|other| after[*other].contains(&step));
        self.to[lane] = None;
        let mut forks = Vec::new();
        for follower in followers {
            let place = if forks.is_empty() { lane } else { self.free() };
            self.to[place] = Some(follower);
            forks.push(place);
        }
        if self.to.len() > MOST_LANES {
            return None;
        }
        // Lanes that begin here do not reach beside the step.
        let begun = forks.get(1..).unwrap_or_default().to_vec();
        let beside = self.line(|at| if begun.contains(&at) { ' ' } else { '│' });
        forks.sort_unstable();
        let after = (forks.len() > 1).then(|| self.connect(&forks, '┐'));
        while self.to.last() == Some(&None) {
            self.to.pop();
        }
        Some(Row { step, dot, beside, before, after })
    }

    fn places(&self, is_wanted: impl Fn(Option<usize>) -> bool) -> Vec<usize> {
        (0..self.to.len()).filter(|at| is_wanted(self.to[*at])).collect()
    }

    /// The first lane that leads nowhere.
    fn free(&mut self) -> usize {
        self.to.iter().position(Option::is_none).unwrap_or_else(|| {
            self.to.push(None);
            self.to.len() - 1
        })
    }

    fn line(&self, char: impl Fn(usize) -> char) -> String {
        let lanes =
            self.to.iter().enumerate().map(|(at, to)| if to.is_some() { char(at) } else { ' ' });
        let line: Vec<String> = lanes.map(String::from).collect();
        line.join(" ").trim_end().to_owned()
    }

    /// A line that connects lanes, of which each but the first ends with `corner`.
    fn connect(&self, lanes: &[usize], corner: char) -> String {
        let (first, last) = (lanes[0], lanes[lanes.len() - 1]);
        let mut line = String::new();
        for at in 0..self.to.len() {
            let is_between = first < at && at < last;
            line.push(match (lanes.contains(&at), self.to[at].is_some()) {
                (true, _) if at == first => '├',
                (true, _) if at == last => corner,
                (true, _) => {
                    if corner == '┘' {
                        '┴'
                    } else {
                        '┬'
                    }
                }
                (false, true) if is_between => '┼',
                (false, true) => '│',
                (false, false) => {
                    if is_between {
                        '─'
                    } else {
                        ' '
                    }
                }
            });
            line.push(if first <= at && at < last { '─' } else { ' ' });
        }
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(after: &[&[usize]]) -> String {
        let after: Vec<Vec<usize>> = after.iter().map(|steps| steps.to_vec()).collect();
        let rows = draw(&after).into_iter().flat_map(|row| {
            let dot = format!("{}  {}", row.dot, row.step);
            row.before.into_iter().chain([dot]).chain(row.after).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn one_after_the_other() {
        insta::assert_snapshot!(drawn(&[&[], &[0], &[1]]), @r"
        ●  0
        ●  1
        ●  2
        ");
    }

    #[test]
    fn branches_begin_and_join() {
        insta::assert_snapshot!(drawn(&[&[], &[0], &[0], &[0], &[1, 3], &[2, 4]]), @r"
        ●  0
        ├─┬─┐
        ● │ │  1
        │ ● │  2
        │ │ ●  3
        ├─┼─┘
        ● │  4
        ├─┘
        ●  5
        ");
    }

    #[test]
    fn steps_that_wait_for_nothing_stand_side_by_side() {
        insta::assert_snapshot!(drawn(&[&[], &[], &[1], &[0, 2]]), @r"
        ●  0
        │ ●  1
        │ ●  2
        ├─┘
        ●  3
        ");
    }

    #[test]
    fn a_step_that_waits_for_a_later_one_is_drawn_after_it() {
        insta::assert_snapshot!(drawn(&[&[1], &[]]), @r"
        ●  1
        ●  0
        ");
    }

    #[test]
    fn too_many_branches_are_not_drawn() {
        let wide: Vec<Vec<usize>> =
            (0..30).map(|step| if step == 0 { vec![] } else { vec![0] }).collect();
        assert!(draw(&wide).iter().all(|row| row.dot == "●" && row.after.is_none()));
    }
}
