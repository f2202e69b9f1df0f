//! Where the nodes and edges of a graph are drawn: in layers from left to right, so that edges go to the right wherever they can,
//! and in lanes, one for each group of nodes, from top to bottom.
//!
//! After Sugiyama, Tagawa and Toda (1981): edges that would close a circle are turned around; each node is in the layer after
//! the last of those that lead to it; long edges get a bend in each layer between; the order within a layer follows the middle of
//! the neighbours, sweep by sweep, and never leaves the lanes.

/// The size of a node.
pub(super) const NODE: (f64, f64) = (158.0, 38.0);
/// Between two nodes of a layer.
const APART: f64 = 10.0;
/// What a bend takes of a layer.
const BEND: f64 = 8.0;
/// Between two layers.
const GAP: f64 = 96.0;
/// Above the first node of a lane, where its name stands, and below its last.
const LANE: (f64, f64) = (26.0, 12.0);
/// Left and right of everything.
const MARGIN: f64 = 14.0;
/// How often the order within layers is looked through.
const SWEEPS: usize = 12;
/// How often heights are evened out.
const SMOOTHINGS: usize = 10;

/// What is to be drawn.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The lane of each node.
    pub(super) lanes: Vec<usize>,
    /// From which node to which; no node to itself.
    pub(super) edges: Vec<(usize, usize)>,
}

/// Where it is drawn.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    pub(super) size: (f64, f64),
    /// The left upper corner of each node.
    pub(super) nodes: Vec<(f64, f64)>,
    /// The points of each edge, from its begin to its end.
    pub(super) edges: Vec<Vec<(f64, f64)>>,
    /// The upper and lower end of each lane.
    pub(super) lanes: Vec<(f64, f64)>,
}

/// A node, or a bend of a long edge.
#[derive(Debug, Clone, Copy)]
struct Vertex {
    layer: usize,
    lane: usize,
    height: f64,
    y: f64,
}

#[derive(Debug)]
struct Layout {
    vertices: Vec<Vertex>,
    /// The vertices of each layer, from top to bottom.
    layers: Vec<Vec<usize>>,
    /// What each vertex has in the layer before, and after.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

/// Where everything is drawn.
pub(super) fn draw(graph: &Graph) -> Drawing {
    let count = graph.lanes.len();
    if count == 0 {
        return Drawing::default();
    }
    let turned = turned(count, &graph.edges);
    let forward: Vec<(usize, usize)> = graph
        .edges
        .iter()
        .zip(&turned)
        .map(|(&(from, to), &is)| if is { (to, from) } else { (from, to) })
        .collect();
    let layers = layers(count, &forward);
    let places = lane_places(graph);
    let (mut layout, chains) = Layout::new(graph, &forward, &layers, &places);
    layout.order();
    let bounds = layout.heights(places.len());
    let x = |layer: usize| MARGIN + layer as f64 * (NODE.0 + GAP);
    let corner = |vertex: &Vertex| (x(vertex.layer), vertex.y);
    let edges = chains.iter().zip(&turned).map(|(chain, is_turned)| {
        let mut points = Vec::new();
        for (place, vertex) in chain.iter().enumerate() {
            let vertex = &layout.vertices[*vertex];
            let (left, top) = corner(vertex);
            let middle = top + vertex.height / 2.0;
            if place > 0 {
                points.push((left, middle));
            }
            if place + 1 < chain.len() {
                points.push((left + NODE.0, middle));
            }
        }
        if *is_turned {
            points.reverse();
        }
        points
    });
    let deepest = layers.iter().max().copied().unwrap_or_default();
    let by_lane = |lane: usize| bounds[places[lane]];
    Drawing {
        size: (x(deepest) + NODE.0 + MARGIN, bounds.last().map_or(0.0, |(_, end)| *end)),
        nodes: layout.vertices[..count].iter().map(corner).collect(),
        edges: edges.collect(),
        lanes: (0..places.len()).map(by_lane).collect(),
    }
}

/// Which edges have to be turned around so that there is no circle.
fn turned(count: usize, edges: &[(usize, usize)]) -> Vec<bool> {
    let mut out = vec![Vec::new(); count];
    let mut incoming = vec![0_usize; count];
    for (edge, (from, to)) in edges.iter().enumerate() {
        out[*from].push(edge);
        incoming[*to] += 1;
    }
    let mut turned = vec![false; edges.len()];
    // 0: not seen; 1: on the way from the begin of the search; 2: done.
    let mut state = vec![0_u8; count];
    let mut begins: Vec<usize> = (0..count).collect();
    begins.sort_by_key(|node| {
        (incoming[*node] > 0, incoming[*node] as isize - out[*node].len() as isize, *node)
    });
    for begin in begins {
        if state[begin] != 0 {
            continue;
        }
        state[begin] = 1;
        let mut way = vec![(begin, 0)];
        while let Some((node, next)) = way.last_mut() {
            let Some(edge) = out[*node].get(*next).copied() else {
                state[*node] = 2;
                way.pop();
                continue;
            };
            *next += 1;
            let to = edges[edge].1;
            match state[to] {
                0 => {
                    state[to] = 1;
                    way.push((to, 0));
                }
                1 => turned[edge] = true,
                _ => {}
            }
        }
    }
    turned
}

/// The layer of each node of a graph without circles.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut out = vec![Vec::new(); count];
    let mut waiting = vec![0_usize; count];
    for (from, to) in edges {
        out[*from].push(*to);
        waiting[*to] += 1;
    }
    let is_first: Vec<bool> = waiting.iter().map(|waiting| *waiting == 0).collect();
    let mut layers = vec![0_usize; count];
    let mut ready: Vec<usize> = (0..count).filter(|node| is_first[*node]).collect();
    while let Some(node) = ready.pop() {
        for to in &out[node] {
            layers[*to] = layers[*to].max(layers[node] + 1);
            waiting[*to] -= 1;
            if waiting[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    // Whoever is called by nobody stands beside whom it calls.
    for node in (0..count).filter(|node| is_first[*node]) {
        if let Some(first) = out[node].iter().map(|to| layers[*to]).min() {
            layers[node] = first.saturating_sub(1);
        }
    }
    layers
}

/// The place of each lane from the top, so that lanes with much between them lie side by side.
fn lane_places(graph: &Graph) -> Vec<usize> {
    let count = graph.lanes.iter().max().map_or(0, |last| last + 1);
    let mut between = vec![vec![0_i64; count]; count];
    for (from, to) in &graph.edges {
        let (from, to) = (graph.lanes[*from], graph.lanes[*to]);
        between[from][to] += 1;
        between[to][from] += 1;
    }
    let mut order: Vec<usize> = (0..count).collect();
    let cost = |order: &[usize]| -> i64 {
        let mut cost = 0;
        for (a, one) in order.iter().enumerate() {
            for (b, other) in order.iter().enumerate().skip(a + 1) {
                cost += between[*one][*other] * (b - a) as i64;
            }
        }
        cost
    };
    let mut best = cost(&order);
    // Lanes are namespaces: of very many the order matters less than the time.
    for _ in 0..if count <= 40 { 8 } else { 0 } {
        let mut is_better = false;
        for one in 0..count {
            for other in one + 1..count {
                order.swap(one, other);
                let now = cost(&order);
                if now < best {
                    (best, is_better) = (now, true);
                } else {
                    order.swap(one, other);
                }
            }
        }
        if !is_better {
            break;
        }
    }
    let mut places = vec![0; count];
    for (place, lane) in order.into_iter().enumerate() {
        places[lane] = place;
    }
    places
}

impl Layout {
    /// With a chain of vertices for each edge.
    fn new(
        graph: &Graph,
        edges: &[(usize, usize)],
        layers: &[usize],
        places: &[usize],
    ) -> (Self, Vec<Vec<usize>>) {
        let node = |(layer, lane): (&usize, &usize)| Vertex {
            layer: *layer,
            lane: places[*lane],
            height: NODE.1,
            y: 0.0,
        };
        let mut vertices: Vec<Vertex> = layers.iter().zip(&graph.lanes).map(node).collect();
        let mut chains = Vec::with_capacity(edges.len());
        for (from, to) in edges {
            let mut chain = vec![*from];
            let (begin, end) = (vertices[*from], vertices[*to]);
            let middle = usize::midpoint(begin.layer, end.layer);
            for layer in begin.layer + 1..end.layer {
                let lane = if layer <= middle { begin.lane } else { end.lane };
                chain.push(vertices.len());
                vertices.push(Vertex { layer, lane, height: BEND, y: 0.0 });
            }
            chain.push(*to);
            chains.push(chain);
        }
        let mut layout = Self {
            layers: vec![Vec::new(); layers.iter().max().map_or(0, |last| last + 1)],
            before: vec![Vec::new(); vertices.len()],
            after: vec![Vec::new(); vertices.len()],
            vertices,
        };
        for chain in &chains {
            for pair in chain.windows(2) {
                layout.after[pair[0]].push(pair[1]);
                layout.before[pair[1]].push(pair[0]);
            }
        }
        for (vertex, one) in layout.vertices.iter().enumerate() {
            layout.layers[one.layer].push(vertex);
        }
        for layer in &mut layout.layers {
            layer.sort_by_key(|vertex| (layout.vertices[*vertex].lane, *vertex));
        }
        (layout, chains)
    }

    /// Finds an order with few crossings.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let is_forward = sweep % 2 == 0;
            let mut places = vec![0_usize; self.vertices.len()];
            for layer in &self.layers {
                layer.iter().enumerate().for_each(|(place, vertex)| places[*vertex] = place);
            }
            let count = self.layers.len();
            for step in 0..count {
                let at = if is_forward { step } else { count - 1 - step };
                let beside = if is_forward { &self.before } else { &self.after };
                let middle = |vertex: &usize| {
                    let beside = &beside[*vertex];
                    let sum: usize = beside.iter().map(|other| places[*other]).sum();
                    if beside.is_empty() { places[*vertex] as f64 } else { sum as f64 / beside.len() as f64 }
                };
                let mut layer: Vec<(usize, f64, usize)> = self.layers[at]
                    .iter()
                    .map(|vertex| (self.vertices[*vertex].lane, middle(vertex), *vertex))
                    .collect();
                layer.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
                self.layers[at] = layer.into_iter().map(|(.., vertex)| vertex).collect();
                self.layers[at].iter().enumerate().for_each(|(place, vertex)| places[*vertex] = place);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    /// How often edges cross between neighbouring layers.
    fn crossings(&self) -> usize {
        let mut places = vec![0_usize; self.vertices.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(place, vertex)| places[*vertex] = place);
        }
        let mut crossings = 0;
        for layer in self.layers.iter().take(self.layers.len().saturating_sub(1)) {
            let mut ends = Vec::new();
            for vertex in layer {
                let mut beside: Vec<usize> = self.after[*vertex].iter().map(|other| places[*other]).collect();
                beside.sort_unstable();
                ends.extend(beside);
            }
            crossings += inversions(&mut ends);
        }
        crossings
    }

    /// Finds heights near those of the neighbours, within the lanes. Returns where each lane begins and ends.
    fn heights(&mut self, lanes: usize) -> Vec<(f64, f64)> {
        let mut needs = vec![0.0_f64; lanes];
        for layer in &self.layers {
            let mut taken = vec![0.0_f64; lanes];
            for vertex in layer {
                let vertex = &self.vertices[*vertex];
                taken[vertex.lane] += vertex.height + APART;
            }
            needs.iter_mut().zip(&taken).for_each(|(need, taken)| *need = need.max(*taken));
        }
        let (mut bounds, mut at) = (Vec::with_capacity(lanes), 0.0);
        for need in needs {
            let end = at + LANE.0 + (need - APART).max(0.0) + LANE.1;
            bounds.push((at, end));
            at = end;
        }
        for layer in &self.layers {
            let mut next: Vec<f64> = bounds.iter().map(|(begin, _)| begin + LANE.0).collect();
            for vertex in layer {
                let vertex = &mut self.vertices[*vertex];
                vertex.y = next[vertex.lane];
                next[vertex.lane] += vertex.height + APART;
            }
        }
        for round in 0..SMOOTHINGS {
            for step in 0..self.layers.len() {
                let at = if round % 2 == 0 { step } else { self.layers.len() - 1 - step };
                self.even_out(at, &bounds);
            }
        }
        bounds
    }

    /// Moves the vertices of a layer to the middle of their neighbours, as far as their order and lanes let them.
    fn even_out(&mut self, layer: usize, bounds: &[(f64, f64)]) {
        let middle = |vertex: usize| self.vertices[vertex].y + self.vertices[vertex].height / 2.0;
        let wished = |vertex: &usize| {
            let beside = || self.before[*vertex].iter().chain(&self.after[*vertex]);
            let count = beside().count();
            let sum: f64 = beside().map(|other| middle(*other)).sum();
            let middle = if count == 0 { middle(*vertex) } else { sum / count as f64 };
            middle - self.vertices[*vertex].height / 2.0
        };
        let order = self.layers[layer].clone();
        let mut placed: Vec<(usize, f64)> = order.iter().map(|vertex| (*vertex, wished(vertex))).collect();
        // From the top: nobody before its lane, or on the one before it.
        let mut least: Option<(usize, f64)> = None;
        for (vertex, y) in &mut placed {
            let one = self.vertices[*vertex];
            let top = bounds[one.lane].0 + LANE.0;
            let free = least.filter(|(lane, _)| *lane == one.lane).map_or(top, |(_, free)| free.max(top));
            *y = y.max(free);
            least = Some((one.lane, *y + one.height + APART));
        }
        // From the bottom: nobody behind its lane, or on the one after it.
        let mut most: Option<(usize, f64)> = None;
        for (vertex, y) in placed.iter_mut().rev() {
            let one = self.vertices[*vertex];
            let bottom = bounds[one.lane].1 - LANE.1;
            let free =
                most.filter(|(lane, _)| *lane == one.lane).map_or(bottom, |(_, free)| free.min(bottom));
            *y = y.min(free - one.height);
            most = Some((one.lane, *y - APART));
        }
        for (vertex, y) in placed {
            self.vertices[vertex].y = y;
        }
    }
}

/// How many pairs stand the wrong way around; sorts.
fn inversions(list: &mut [usize]) -> usize {
    if list.len() < 2 {
        return 0;
    }
    let middle = list.len() / 2;
    let mut count = inversions(&mut list[..middle]) + inversions(&mut list[middle..]);
    let (left, right) = (list[..middle].to_vec(), list[middle..].to_vec());
    let (mut from_left, mut from_right) = (0, 0);
    for place in list.iter_mut() {
        let takes_right =
            from_left == left.len() || (from_right < right.len() && right[from_right] < left[from_left]);
        if takes_right {
            count += left.len() - from_left;
            *place = right[from_right];
            from_right += 1;
        } else {
            *place = left[from_left];
            from_left += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graphs() -> impl Strategy<Value = Graph> {
        (1_usize..40, 1_usize..6).prop_flat_map(|(count, lanes)| {
            let edges = prop::collection::vec((0..count, 0..count), 0..80);
            (prop::collection::vec(0..lanes, count), edges).prop_map(|(lanes, mut edges)| {
                edges.retain(|(from, to)| from != to);
                edges.sort_unstable();
                edges.dedup();
                Graph { lanes, edges }
            })
        })
    }

    proptest! {
        #[test]
        fn nothing_lies_on_another_and_everything_is_in_its_lane(graph in graphs()) {
            let drawing = draw(&graph);
            for (one, (x, y)) in drawing.nodes.iter().enumerate() {
                let (begin, end) = drawing.lanes[graph.lanes[one]];
                prop_assert!(*y >= begin && y + NODE.1 <= end + 1e-6, "{one} at {y} in {begin}..{end}");
                prop_assert!(*x >= 0.0 && x + NODE.0 <= drawing.size.0);
                for (other, (other_x, other_y)) in drawing.nodes.iter().enumerate().skip(one + 1) {
                    let apart = (x - other_x).abs() >= NODE.0 || (y - other_y).abs() >= NODE.1;
                    prop_assert!(apart, "{one} and {other}");
                }
            }
            for ((from, to), points) in graph.edges.iter().zip(&drawing.edges) {
                let end = |node: usize, (x, y): (f64, f64)| {
                    let (left, top) = drawing.nodes[node];
                    ((x - left).abs() < 1e-6 || (x - left - NODE.0).abs() < 1e-6) && (y - top - NODE.1 / 2.0).abs() < 1e-6
                };
                prop_assert!(end(*from, points[0]) && end(*to, points[points.len() - 1]));
            }
        }
    }

    #[test]
    fn calls_go_to_the_right_and_a_circle_is_closed_by_one_edge_to_the_left() {
        let graph = Graph { lanes: vec![0; 4], edges: vec![(0, 1), (1, 2), (2, 3), (3, 1)] };
        let drawing = draw(&graph);
        let is_right = |(from, to): &(usize, usize)| drawing.nodes[*from].0 < drawing.nodes[*to].0;
        let right: Vec<bool> = graph.edges.iter().map(is_right).collect();
        assert_eq!(right, [true, true, true, false]);
        let back = &drawing.edges[3];
        assert!(back[0].0 > back[back.len() - 1].0);
    }

    #[test]
    fn the_sweeps_untangle_what_can_be_untangled() {
        // Three pairs, given crosswise.
        let graph = Graph { lanes: vec![0; 6], edges: vec![(0, 5), (1, 4), (2, 3)] };
        let drawing = draw(&graph);
        for (from, to) in &graph.edges {
            assert!((drawing.nodes[*from].1 - drawing.nodes[*to].1).abs() < 1e-6, "{drawing:?}");
        }
    }

    #[test]
    fn lanes_with_much_between_them_lie_side_by_side() {
        let graph = Graph { lanes: vec![0, 1, 2, 0, 2], edges: vec![(0, 2), (3, 4), (0, 4), (1, 2)] };
        let places = lane_places(&graph);
        assert_eq!(places[0].abs_diff(places[2]), 1);
    }

    #[test]
    fn inversions_are_counted() {
        assert_eq!(inversions(&mut [3, 1, 2]), 2);
        assert_eq!(inversions(&mut [1, 1, 2]), 0);
    }
}
