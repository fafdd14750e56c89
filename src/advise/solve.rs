//! The choice as a problem of its own: from the costs that are known, the set of indexes that makes their sum least.
//!
//! A statement's cost under a set is the least of the costs known for configurations that lie within it. That is never
//! less than what the planner would say (more indexes only give it more to choose from), and it needs no
//! planner, so thousands of sets can be compared: greedy growth by several measures of benefit for size, then
//! forced insertions and removals by one and two, each filled up again.

use super::whatif::Set;

/// Greedy growth divides the gain by the size to each of these powers: outright, by the byte, and between.
const POWERS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// How many of the sets so grown are improved.
const IMPROVED: usize = 2;
/// How often all insertions and removals are tried.
const PASSES: usize = 4;
/// A change must bring this share of the cost: less is noise.
const MIN_GAIN: f64 = 1e-6;
/// Removals by two are tried up to this many chosen indexes.
const MAX_PAIRED: usize = 24;

/// One known cost of a statement.
struct Configuration {
    /// The indexes its plan needs.
    needed: Vec<usize>,
    /// Its cost times calls.
    cost: f64,
}

/// Costs, sizes and limits.
pub(super) struct Problem {
    /// Bytes at most.
    pub budget: Option<u64>,
    /// What a byte costs, in the currency of the statements.
    pub byte_price: f64,
    /// An index must bring this much when it is added.
    pub least_gain: f64,
    /// For each statement what is known, cheapest first, without the dominated.
    configurations: Vec<Vec<Configuration>>,
    /// Sizes by pool position; 0 for what is not to be chosen.
    sizes: Vec<u64>,
    /// For each index the (statement, configuration) that need it.
    places: Vec<Vec<(usize, usize)>>,
    /// What has a size and a use.
    choices: Vec<usize>,
}

/// A set, and what each statement costs under it.
#[derive(Clone)]
struct Point {
    set: Set,
    /// The cheapest configuration within the set, by statement ..
    at: Vec<usize>,
    /// .. and its cost.
    costs: Vec<f64>,
    bytes: u64,
    burden: f64,
}

impl Problem {
    /// A problem over what is known of each statement: indexes needed, and cost times calls.
    pub fn new(known: Vec<Vec<(Set, f64)>>, sizes: Vec<u64>) -> Self {
        let possible = |set: &Set| set.iter().all(|index| sizes.get(index).is_some_and(|size| *size > 0));
        let configurations: Vec<Vec<Configuration>> = known
            .into_iter()
            .map(|known| undominated(known.into_iter().filter(|(needed, _)| possible(needed)).collect()))
            .collect();
        let known = configurations.iter().map(|known| known.iter().map(|k| k.needed.as_slice()).collect());
        let places = places(known, sizes.len());
        let choices = (0..sizes.len()).filter(|index| places.get(*index).is_some_and(|p| !p.is_empty())).collect();
        Self { configurations, sizes, budget: None, byte_price: 0.0, least_gain: 0.0, places, choices }
    }

    /// Takes these out of the choice.
    pub fn bar(&mut self, barred: &Set) {
        for known in &mut self.configurations {
            known.retain(|known| !known.needed.iter().any(|index| barred.contains(*index)));
        }
        let known = self.configurations.iter().map(|known| known.iter().map(|k| k.needed.as_slice()).collect());
        self.places = places(known, self.sizes.len());
        self.choices.retain(|index| !barred.contains(*index));
    }

    fn size(&self, index: usize) -> u64 {
        self.sizes.get(index).copied().unwrap_or(0)
    }

    fn start(&self) -> Point {
        let bare = |known: &Vec<Configuration>| known.iter().position(|known| known.needed.is_empty());
        let at: Vec<usize> = self.configurations.iter().map(|known| bare(known).unwrap_or(known.len())).collect();
        let known = self.configurations.iter().zip(&at);
        let costs: Vec<f64> = known.map(|(known, at)| known.get(*at).map_or(0.0, |known| known.cost)).collect();
        let burden = costs.iter().sum();
        Point { set: Set::default(), at, costs, bytes: 0, burden }
    }

    /// The point with these as well, none of which it has. A configuration that comes within reach needs one of them.
    fn with(&self, from: &Point, added: &[usize]) -> Point {
        let mut next = from.clone();
        for index in added {
            next.set.insert(*index);
            next.bytes += self.size(*index);
        }
        for (statement, place) in added.iter().filter_map(|index| self.places.get(*index)).flatten() {
            let known = self.configurations.get(*statement).and_then(|known| known.get(*place));
            let (Some(known), Some(at), Some(cost)) =
                (known, next.at.get_mut(*statement), next.costs.get_mut(*statement))
            else {
                continue;
            };
            if *place < *at && known.needed.iter().all(|index| next.set.contains(*index)) {
                (*at, *cost) = (*place, known.cost);
            }
        }
        self.weighed(next)
    }

    /// The point without these, all of which it has. What was out of reach stays so: the next cheapest is looked for.
    fn without(&self, from: &Point, removed: &[usize]) -> Point {
        let mut next = from.clone();
        for index in removed {
            next.set.remove(*index);
            next.bytes = next.bytes.saturating_sub(self.size(*index));
        }
        for ((known, at), cost) in self.configurations.iter().zip(&mut next.at).zip(&mut next.costs) {
            let within = |known: &Configuration| known.needed.iter().all(|index| next.set.contains(*index));
            if known.get(*at).is_some_and(within) {
                continue;
            }
            *at = known.iter().skip(*at).position(within).map_or(known.len(), |further| *at + further);
            *cost = known.get(*at).map_or(0.0, |known| known.cost);
        }
        self.weighed(next)
    }

    fn weighed(&self, mut point: Point) -> Point {
        // Bytes are far below 2^52, where f64 is exact.
        point.burden = point.costs.iter().sum::<f64>() + point.bytes as f64 * self.byte_price;
        point
    }

    fn gain_of(&self, point: &Point, index: usize) -> f64 {
        let mut saved = 0.0;
        let mut last = None;
        // Places are in the order of statements, and of cost within one: the first that is within reach counts.
        for (statement, at) in self.places.get(index).map_or(&[][..], Vec::as_slice) {
            if last == Some(*statement) {
                continue;
            }
            let now = point.costs.get(*statement).copied().unwrap_or(0.0);
            let Some(known) = self.configurations.get(*statement).and_then(|known| known.get(*at)) else { continue };
            if known.cost >= now {
                last = Some(*statement);
            } else if known.needed.iter().all(|needed| *needed == index || point.set.contains(*needed)) {
                saved += now - known.cost;
                last = Some(*statement);
            }
        }
        saved - self.size(index) as f64 * self.byte_price
    }

    fn fits(&self, bytes: u64) -> bool {
        self.budget.is_none_or(|budget| bytes <= budget)
    }

    /// The best single addition: its score, and what it is.
    fn best_single(&self, point: &Point, power: f64) -> Option<(f64, Vec<usize>)> {
        let mut best: Option<(f64, usize)> = None;
        for index in self.choices.iter().filter(|index| !point.set.contains(**index)) {
            let size = self.size(*index);
            if !self.fits(point.bytes + size) {
                continue;
            }
            let gain = self.gain_of(point, *index);
            let score = gain / (size as f64).powf(power);
            if gain > self.least_gain && best.is_none_or(|(known, _)| score > known) {
                best = Some((score, *index));
            }
        }
        best.map(|(score, index)| (score, vec![index]))
    }

    /// The best addition of all that one configuration still lacks, when that is more than one index: they may pay only
    /// together.
    fn best_together(&self, point: &Point, power: f64) -> Option<(f64, Vec<usize>)> {
        let mut best: Option<(f64, &Configuration)> = None;
        for (at, known) in self.configurations.iter().enumerate() {
            let now = point.costs.get(at).copied().unwrap_or(0.0);
            for configuration in known.iter().take_while(|known| known.cost < now) {
                let lacking = configuration.needed.iter().filter(|index| !point.set.contains(**index));
                let (count, bytes) =
                    lacking.fold((0, 0), |(count, bytes), index| (count + 1, bytes + self.size(*index)));
                let gain = now - configuration.cost - bytes as f64 * self.byte_price;
                let score = gain / (bytes as f64).powf(power);
                if count > 1
                    && gain > self.least_gain
                    && self.fits(point.bytes + bytes)
                    && best.is_none_or(|(known, _)| score > known)
                {
                    best = Some((score, configuration));
                }
            }
        }
        let lacking =
            |known: &Configuration| known.needed.iter().filter(|i| !point.set.contains(**i)).copied().collect();
        best.map(|(score, known)| (score, lacking(known)))
    }

    /// Adds the best, then the next best, while one pays.
    fn grow(&self, from: Point, power: f64) -> Point {
        let mut point = from;
        loop {
            let single = self.best_single(&point, power);
            let together = self.best_together(&point, power);
            let better = match (single, together) {
                (Some(single), Some(together)) => {
                    if together.0 > single.0 {
                        together
                    } else {
                        single
                    }
                }
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return point,
            };
            point = self.with(&point, &better.1);
        }
    }

    /// Takes out what brings less than it costs, and then, while the budget is exceeded, what brings least for its
    /// size; `keep` stays.
    fn shrink(&self, from: Point, keep: Option<usize>) -> Point {
        let mut point = from;
        loop {
            let over = !self.fits(point.bytes);
            let mut worst: Option<(f64, Point)> = None;
            for index in point.set.iter().filter(|index| Some(*index) != keep) {
                let without = self.without(&point, &[index]);
                let loss = without.burden - point.burden;
                let score = if over { loss / self.size(index).max(1) as f64 } else { loss };
                if (over || loss <= 0.0) && worst.as_ref().is_none_or(|(known, _)| score < *known) {
                    worst = Some((score, without));
                }
            }
            match worst {
                Some((_, without)) => point = without,
                None => return point,
            }
        }
    }

    /// The best set found, or the best so far once `stop` says so; `known` is where the search starts beside nothing.
    pub fn solve(&self, known: &Set, stop: &dyn Fn() -> bool) -> Set {
        let changed: Vec<usize> = known.iter().filter(|index| self.size(*index) > 0).collect();
        let start = self.start();
        let enough = start.burden * MIN_GAIN;
        let mut grown: Vec<(Point, f64)> = Vec::new();
        for power in POWERS {
            if grown.is_empty() || !stop() {
                grown.push((self.shrink(self.grow(start.clone(), power), None), power));
            }
        }
        let warm = self.shrink(self.with(&start, &changed), None);
        grown.push((self.grow(warm, 1.0), 1.0));
        grown.sort_by(|a, b| a.0.burden.total_cmp(&b.0.burden));
        grown.dedup_by(|a, b| a.0.set == b.0.set);
        let mut best = start;
        for (point, power) in grown.into_iter().take(IMPROVED) {
            let improved = self.improve(point, power, enough, stop);
            if improved.burden < best.burden - enough {
                best = improved;
            }
        }
        best.set
    }

    fn improve(&self, from: Point, power: f64, enough: f64, stop: &dyn Fn() -> bool) -> Point {
        let mut best = from;
        for _ in 0..PASSES {
            let before = best.burden;
            best = self.insertions(best, power, enough, stop);
            best = self.removals(best, power, enough, stop);
            if best.burden >= before - enough {
                break;
            }
        }
        best
    }

    /// Puts each index that is not chosen in by force, makes room, and fills up.
    fn insertions(&self, from: Point, power: f64, enough: f64, stop: &dyn Fn() -> bool) -> Point {
        let mut best = from;
        for index in self.choices.iter().copied() {
            if stop() {
                break;
            }
            if best.set.contains(index) || !self.fits(self.size(index)) {
                continue;
            }
            let with = self.with(&best, &[index]);
            let fitted = self.shrink(with, Some(index));
            if !self.fits(fitted.bytes) {
                continue;
            }
            let filled = if fitted.bytes < best.bytes || fitted.set.iter().count() < best.set.iter().count() {
                self.grow(fitted, power)
            } else {
                fitted
            };
            if filled.burden < best.burden - enough {
                best = self.shrink(filled, None);
            }
        }
        best
    }

    /// Takes one or two chosen indexes out and fills up with something else.
    fn removals(&self, from: Point, power: f64, enough: f64, stop: &dyn Fn() -> bool) -> Point {
        let mut best = from;
        let chosen: Vec<usize> = best.set.iter().collect();
        let mut tries: Vec<Vec<usize>> = chosen.iter().map(|index| vec![*index]).collect();
        if chosen.len() <= MAX_PAIRED {
            for (at, first) in chosen.iter().enumerate() {
                tries.extend(chosen.iter().skip(at + 1).map(|second| vec![*first, *second]));
            }
        }
        for gone in tries {
            if stop() {
                break;
            }
            if !gone.iter().all(|index| best.set.contains(*index)) {
                continue;
            }
            let filled = self.grow(self.without(&best, &gone), power);
            if filled.burden < best.burden - enough {
                best = self.shrink(filled, None);
            }
        }
        best
    }
}

/// For each index the (statement, configuration) that need it.
fn places<'a>(known: impl Iterator<Item = Vec<&'a [usize]>>, indexes: usize) -> Vec<Vec<(usize, usize)>> {
    let mut places = vec![Vec::new(); indexes];
    for (statement, known) in known.enumerate() {
        for (at, needed) in known.into_iter().enumerate() {
            for index in needed {
                if let Some(places) = places.get_mut(*index) {
                    places.push((statement, at));
                }
            }
        }
    }
    places
}

fn undominated(mut known: Vec<(Set, f64)>) -> Vec<Configuration> {
    known.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.iter().count().cmp(&b.0.iter().count())));
    let mut kept: Vec<(Set, f64)> = Vec::new();
    for (set, cost) in known {
        if !kept.iter().any(|(smaller, _)| smaller.is_within(&set)) {
            kept.push((set, cost));
        }
    }
    kept.into_iter().map(|(needed, cost)| Configuration { needed: needed.iter().collect(), cost }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[usize]) -> Set {
        items.iter().copied().collect()
    }

    #[test]
    fn two_that_pay_only_together_are_found() {
        let known = vec![vec![(set(&[]), 100.0), (set(&[0, 1]), 10.0), (set(&[2]), 60.0)]];
        let mut problem = Problem::new(known, vec![10, 10, 10]);
        assert_eq!(problem.solve(&Set::default(), &|| false), set(&[0, 1]));
        problem.budget = Some(15);
        assert_eq!(problem.solve(&Set::default(), &|| false), set(&[2]));
    }

    #[test]
    fn a_knapsack_that_greed_misses() {
        // By the byte 0 comes first and shuts both others out; outright 1 does.
        let known = vec![
            vec![(set(&[]), 100.0), (set(&[0]), 40.0)],
            vec![(set(&[]), 100.0), (set(&[1]), 50.0)],
            vec![(set(&[]), 100.0), (set(&[2]), 50.0)],
        ];
        let mut problem = Problem::new(known, vec![6, 5, 5]);
        problem.budget = Some(10);
        assert_eq!(problem.solve(&Set::default(), &|| false), set(&[1, 2]));
    }

    #[test]
    fn what_costs_more_than_it_brings_stays_out() {
        let mut problem = Problem::new(vec![vec![(set(&[]), 100.0), (set(&[0]), 95.0)]], vec![10]);
        problem.byte_price = 1.0;
        assert_eq!(problem.solve(&Set::default(), &|| false), set(&[]));
        problem.byte_price = 0.1;
        assert_eq!(problem.solve(&Set::default(), &|| false), set(&[0]));
    }
}
