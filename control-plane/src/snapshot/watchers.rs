//! Who is told of a change: the streams that hold something of what has changed, and no others.
//!
//! What an authority means to the clients of a namespace is made once, and all streams share it; if rules select some of these
//! clients by their labels, once more for those. Each such view knows what it
//! was made from; a change says what it touches; and between them is an index. So a change costs what it affects, and a
//! stream that nothing has touched is not even woken. When in doubt a view counts as touched: to look once too often costs
//! time, and to miss a change would leave a proxy with what is not so any more.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use selvedge_model::{Mesh, Workload, WorkloadName, snapshot::Clients};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

use super::{
    Snapshot,
    bell::Bell,
    change::Change,
    view::{self, Input, Part},
};

/// How many streams are woken at once. The next are woken when these have had their turn, so that a change that concerns
/// few does not wait behind one that concerns all.
const AT_ONCE: usize = 64;
/// So many views that have changed are looked at without the others.
const MOST_BY_THEMSELVES: usize = 8;

/// When there are so many views, a stream that looks at [`ALWAYS`] of them gets no other ones: each is kept by itself, and anybody can
/// ask for names of his own, or for one at every port.
const MOST_VIEWS: usize = if cfg!(test) { 6_000 } else { 200_000 };
/// So many views each stream can look at. Hardly a workload calls as many services.
pub const ALWAYS: usize = 1_000;

/// Every stream that is open, and what each of them looks at.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    index: Mutex<Index>,
    /// The newest version of which every stream that it concerns knows.
    told: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Index {
    next: u64,
    /// That of the newest snapshot.
    version: u64,
    views: HashMap<u64, View>,
    /// By clients and authority.
    by_name: HashMap<Clients, HashMap<Arc<str>, u64>>,
    streams: HashMap<u64, Stream>,
    readers: HashMap<Input, Readers>,
    /// Views that are to be made anew when somebody next asks for them.
    stale: HashSet<u64>,
}

/// Who has been made from an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    View(u64),
    Stream(u64),
}

/// Whoever has been made from one input. Most inputs have one reader: a workload, its own stream.
#[derive(Debug)]
enum Readers {
    One(Reader),
    Many(HashSet<Reader>),
}

impl Readers {
    fn add(&mut self, reader: Reader) {
        match self {
            Self::One(one) if *one == reader => {}
            Self::One(one) => *self = Self::Many(HashSet::from([*one, reader])),
            Self::Many(many) => drop(many.insert(reader)),
        }
    }

    /// Whether there is another.
    fn remove(&mut self, reader: Reader) -> bool {
        match self {
            Self::One(one) => *one != reader,
            Self::Many(many) => {
                many.remove(&reader);
                !many.is_empty()
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = Reader> {
        let (one, many) = match self {
            Self::One(one) => (Some(*one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

/// What an authority means to the clients of a namespace, or to some of them.
#[derive(Debug)]
struct View {
    clients: Clients,
    authority: Arc<str>,
    streams: HashSet<u64>,
    /// As it was made last, and of which version.
    made: Option<(u64, Part)>,
    inputs: Vec<Input>,
    /// The last version that has touched it.
    touched: u64,
    /// The last version in which it was made of other resources than before, by their names.
    renamed: u64,
}

#[derive(Debug)]
struct Stream {
    mark: Arc<Mark>,
    /// Of what it holds without having asked.
    inputs: Vec<Input>,
}

/// What is known of one stream by those who do not serve it.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// The last version that concerns it.
    touched: AtomicU64,
    news: Mutex<News>,
    wake: Bell,
}

/// What has changed for a stream that it has not looked at yet.
#[derive(Debug, Default)]
pub struct News {
    /// When the earliest of these changes was noticed.
    pub since: Option<Instant>,
    /// The views that are not what they were, unless there is more.
    views: Vec<u64>,
    /// Whether there is more than views, or so many of them that it may as well look at everything.
    pub is_more: bool,
}

impl News {
    fn add(&mut self, view: Option<u64>) {
        match view {
            Some(view) if self.views.len() < MOST_BY_THEMSELVES => {
                if !self.is_more && !self.views.contains(&view) {
                    self.views.push(view);
                }
            }
            _ => (self.is_more, self.views) = (true, Vec::new()),
        }
    }
}

/// A stream's place among those who are told of changes, for as long as it lives.
#[derive(Debug)]
pub struct Watcher {
    watchers: Arc<Watchers>,
    id: u64,
    /// Those to whom the workload belongs by the snapshot that was last looked at.
    clients: Clients,
    asked: Authorities,
    mark: Arc<Mark>,
}

/// What a stream has asked for, each with the view that it looks at. Cheap to clone; all clones are one, so that others can see it
/// without keeping it a second time for each stream.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Arc<Mutex<BTreeMap<Arc<str>, u64>>>);

impl Authorities {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serialize for Authorities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.lock().keys())
    }
}

impl<'de> Deserialize<'de> for Authorities {
    /// Their names: no view is looked at by them.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = BTreeSet::<Arc<str>>::deserialize(deserializer)?;
        Ok(Self(Arc::new(Mutex::new(names.into_iter().map(|name| (name, 0)).collect()))))
    }
}

/// Whether what a proxy has of one version is what the newest would give it.
#[derive(Debug, Clone)]
pub struct Standing {
    mark: Arc<Mark>,
    told: Arc<AtomicU64>,
}

impl Standing {
    /// The newest version that a proxy has which has that of `version`: what came since may not concern it.
    pub fn newest(&self, version: u64) -> u64 {
        // In this order: of a version that everybody knows of, nobody is told later.
        let told = self.told.load(Ordering::Acquire);
        if self.mark.touched.load(Ordering::Acquire) <= version { version.max(told) } else { version }
    }
}

impl Watchers {
    /// A place for a stream of `workload`, which belongs to `clients` as far as is known.
    pub(super) fn watch(self: &Arc<Self>, workload: &WorkloadName, clients: Clients) -> Watcher {
        let mark = Arc::<Mark>::default();
        let mut index = self.lock();
        let id = index.new_id();
        let inputs = vec![Input::Workload(workload.clone())];
        index.read(Reader::Stream(id), &inputs);
        index.streams.insert(id, Stream { mark: Arc::clone(&mark), inputs });
        Watcher { watchers: Arc::clone(self), id, clients, asked: Authorities::default(), mark }
    }

    /// Has `send` make `snapshot` the newest, and tells those whom it concerns that a change which was noticed at `since`
    /// is in it. `all`: everybody, because it is not only its mesh that differs.
    pub(super) fn publish(
        self: &Arc<Self>,
        before: Option<&Snapshot>,
        snapshot: &Snapshot,
        all: bool,
        since: Instant,
        send: impl FnOnce(),
    ) {
        let (version, after) = (snapshot.version(), snapshot.mesh());
        let change = before.filter(|_| !all).map(|before| Change::between(before.mesh(), after));
        let marks = {
            let mut index = self.lock();
            // Nobody sees a newer snapshot together with views that do not know yet that they are old.
            send();
            index.version = version;
            let touched = match (&change, before) {
                (Some(change), Some(before)) if !change.everything => {
                    Some(index.touched(change, before.mesh(), after))
                }
                _ => None,
            };
            index.mark(version, since, touched)
        };
        self.told.store(version, Ordering::Release);
        wake(marks);
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes all of these: a few at once, and the rest by and by.
fn wake(mut marks: Vec<Arc<Mark>>) {
    let rest = marks.split_off(marks.len().min(AT_ONCE));
    marks.iter().for_each(|mark| mark.wake.ring());
    let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !rest.is_empty()) else {
        rest.iter().for_each(|mark| mark.wake.ring());
        return;
    };
    runtime.spawn(async move {
        for marks in rest.chunks(AT_ONCE) {
            tokio::task::yield_now().await;
            marks.iter().for_each(|mark| mark.wake.ring());
        }
    });
}

impl Index {
    fn new_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn read(&mut self, reader: Reader, inputs: &[Input]) {
        for input in inputs {
            match self.readers.get_mut(input) {
                Some(readers) => readers.add(reader),
                None => drop(self.readers.insert(input.clone(), Readers::One(reader))),
            }
        }
    }

    fn unread(&mut self, reader: Reader, inputs: &[Input]) {
        for input in inputs {
            if self.readers.get_mut(input).is_some_and(|readers| !readers.remove(reader)) {
                self.readers.remove(input);
            }
        }
    }

    /// The views and the streams that `change` concerns.
    fn touched(&self, change: &Change, before: &Mesh, after: &Mesh) -> HashSet<Reader> {
        let mut touched = HashSet::new();
        for input in &change.inputs {
            let readers = self.readers.get(input).into_iter().flat_map(Readers::iter);
            touched.extend(readers.filter(|reader| self.sees(*reader, input, before, after)));
        }
        if !change.hosts.is_empty() {
            // There may be many of both, and every stream waits meanwhile: only wildcards, which are few, are gone through.
            let is_one = |host: &str| change.hosts.contains(host);
            let hosts = change.hosts.iter().map(|host| &**host);
            let wildcards: Vec<&str> = hosts.filter(|host| host.starts_with("*.")).collect();
            let is_decided = |view: &View| {
                let wildcards = wildcards.iter().copied();
                after.is_decided_by(&view.clients.namespace, &view.authority, is_one, wildcards)
            };
            let decided = self.views.iter().filter(|(_, view)| is_decided(view));
            touched.extend(decided.map(|(id, _)| Reader::View(*id)));
        }
        // Somebody may be making it anew now, from what was there before, and its inputs are not known before that is done.
        touched.extend(self.stale.iter().map(|id| Reader::View(*id)));
        touched
    }

    /// Whether what `reader` sees of `input` is different: a service is what it is to its clients.
    fn sees(&self, reader: Reader, input: &Input, before: &Mesh, after: &Mesh) -> bool {
        let (Reader::View(id), Input::Service(key)) = (reader, input) else { return true };
        let Some(view) = self.views.get(&id) else { return false };
        let seen =
            |mesh: &Mesh| mesh.services.get(key).map(|views| Arc::as_ptr(views.for_clients(&view.clients)));
        seen(before) != seen(after)
    }

    /// Notes that `version` concerns the `touched` (`None`: everybody), and gives the streams that are to be woken.
    fn mark(&mut self, version: u64, since: Instant, touched: Option<HashSet<Reader>>) -> Vec<Arc<Mark>> {
        let touched = touched.unwrap_or_else(|| {
            let views = self.views.keys().map(|id| Reader::View(*id));
            views.chain(self.streams.keys().map(|id| Reader::Stream(*id))).collect()
        });
        let Self { views, streams, stale, .. } = self;
        let mut marks = Vec::new();
        let mut tell = |id: &u64, view: Option<u64>| {
            let Some(Stream { mark, .. }) = streams.get(id) else { return };
            // Whoever is told of several things is woken once.
            if mark.touch(version, since, view) {
                marks.push(Arc::clone(mark));
            }
        };
        for reader in touched {
            match reader {
                Reader::Stream(id) => tell(&id, None),
                Reader::View(id) => {
                    if let Some(view) = views.get_mut(&id) {
                        view.touched = version;
                        stale.insert(id);
                        view.streams.iter().for_each(|stream| tell(stream, Some(id)));
                    }
                }
            }
        }
        marks
    }

    /// Whether there is such a view, or may be one more.
    fn has_room_for(&self, clients: &Clients, authority: &str) -> bool {
        let is_known = || self.by_name.get(clients).is_some_and(|views| views.contains_key(authority));
        self.views.len() < MOST_VIEWS || is_known()
    }

    fn ask(&mut self, stream: u64, clients: &Clients, authority: &Arc<str>) -> (u64, Arc<str>) {
        let known = self.by_name.get(clients).and_then(|views| views.get(authority)).copied();
        let id = known.unwrap_or_else(|| {
            let id = self.new_id();
            let view = View {
                clients: clients.clone(),
                authority: Arc::clone(authority),
                streams: HashSet::new(),
                made: None,
                inputs: Vec::new(),
                touched: self.version,
                renamed: self.version,
            };
            self.views.insert(id, view);
            self.by_name.entry(clients.clone()).or_default().insert(Arc::clone(authority), id);
            self.stale.insert(id);
            id
        });
        let view = self.views.get_mut(&id).expect("it is found or made above");
        view.streams.insert(stream);
        (id, Arc::clone(&view.authority))
    }

    fn leave(&mut self, stream: u64, id: u64) {
        let Some(view) = self.views.get_mut(&id) else { return };
        view.streams.remove(&stream);
        if !view.streams.is_empty() {
            return;
        }
        let Some(view) = self.views.remove(&id) else { return };
        self.unread(Reader::View(id), &view.inputs);
        self.stale.remove(&id);
        if let Some(views) = self.by_name.get_mut(&view.clients) {
            views.remove(&view.authority);
            if views.is_empty() {
                self.by_name.remove(&view.clients);
            }
        }
    }

    /// The view `id` as it is in `version`, if that is known.
    fn made(&self, id: u64, version: u64) -> Option<Part> {
        let view = self.views.get(&id)?;
        let (made, part) = view.made.as_ref()?;
        (*made <= version && view.touched <= *made || *made == version).then(|| part.clone())
    }

    /// The same; `None`: since the version `looked` it was made of other resources than before.
    fn made_since(&self, id: u64, version: u64, looked: u64) -> Option<Option<Part>> {
        let made = self.made(id, version);
        let is_renamed = made.is_some() && self.views.get(&id)?.renamed > looked;
        (!is_renamed).then_some(made)
    }

    /// Keeps a view that was made of `version` for all who ask next; whether there is none of a later one.
    fn keep(&mut self, id: u64, version: u64, part: &Part, inputs: &[Input]) -> bool {
        let Some(view) = self.views.get_mut(&id) else { return false };
        if let Some((made, _)) = view.made.as_ref().filter(|(made, _)| *made >= version) {
            return *made == version;
        }
        if !view.made.as_ref().is_some_and(|(_, before)| before.has_names_of(part)) {
            view.renamed = version;
        }
        view.made = Some((version, part.clone()));
        if view.touched <= version {
            self.stale.remove(&id);
        }
        if view.inputs != inputs {
            let before = std::mem::replace(&mut view.inputs, inputs.to_owned());
            self.unread(Reader::View(id), &before);
            self.read(Reader::View(id), inputs);
        }
        true
    }
}

impl Mark {
    /// Notes that `version` has changed this `view`, or something else (`None`); whether it is the first of that version.
    fn touch(&self, version: u64, since: Instant, view: Option<u64>) -> bool {
        let before = self.touched.fetch_max(version, Ordering::AcqRel);
        let mut news = self.news();
        news.since.get_or_insert(since);
        news.add(view);
        before < version
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// What it looks at.
    pub fn authorities(&self) -> &Authorities {
        &self.asked
    }

    /// Also looks at what `authority` means. `false`: it does not, because it looks at [`ALWAYS`] others, and all streams together at
    /// very many.
    pub fn ask(&mut self, authority: &Arc<str>) -> bool {
        let (is_known, has_many) = {
            let asked = self.asked.lock();
            (asked.contains_key(authority), asked.len() >= ALWAYS)
        };
        if is_known {
            return true;
        }
        let (id, shared) = {
            let mut index = self.watchers.lock();
            if has_many && !index.has_room_for(&self.clients, authority) {
                return false;
            }
            index.ask(self.id, &self.clients, authority)
        };
        self.asked.lock().insert(shared, id);
        true
    }

    /// Looks at it no more; whether it did.
    pub fn leave(&mut self, authority: &str) -> bool {
        let asked = self.asked.lock().remove(authority);
        if let Some(id) = asked {
            self.watchers.lock().leave(self.id, id);
        }
        asked.is_some()
    }

    /// Waits for a newer snapshot that concerns the stream.
    pub async fn changed(&self) {
        self.mark.wake.rung().await;
    }

    /// What has changed since this was last asked. Whoever looks asks before he takes the newest snapshot, which has all of it.
    pub fn news(&self) -> News {
        std::mem::take(&mut *self.mark.news())
    }

    /// Whether something else has changed than what the stream has asked for, such as its workload.
    pub fn concerns_itself(&self) -> bool {
        self.mark.news().is_more
    }

    /// By which others see whether the stream is up to date.
    pub fn standing(&self) -> Standing {
        Standing { mark: Arc::clone(&self.mark), told: Arc::clone(&self.watchers.told) }
    }

    /// Everything that the proxy of `workload` is to hold by `snapshot`, with what it asked for: what [`view::view`] makes
    /// of them, shared with others; and whether none of them was made anew meanwhile of a later snapshot.
    pub fn parts(&mut self, snapshot: &Snapshot, workload: &Arc<Workload>) -> (Vec<Part>, bool) {
        let version = snapshot.version();
        let (mut parts, inputs) = view::own(snapshot, workload);
        let mut are_kept = true;
        if snapshot.mesh().selected.get(&workload.name) != self.clients.selected.as_ref() {
            self.belong_to(snapshot.mesh().clients(&workload.name), version);
        }
        let asked = {
            let mut index = self.watchers.lock();
            self.reads(&mut index, version, &inputs);
            let made =
                |(authority, id): (&Arc<str>, &u64)| (Arc::clone(authority), *id, index.made(*id, version));
            self.asked.lock().iter().map(made).collect::<Vec<_>>()
        };
        for (authority, id, made) in asked {
            parts.push(made.unwrap_or_else(|| {
                let (part, inputs) = view::part(snapshot, &self.clients, &authority);
                are_kept &= self.watchers.lock().keep(id, version, &part, &inputs);
                part
            }));
        }
        (parts, are_kept)
    }

    /// Of what [`Self::parts`] gives, the parts that are not what they were, for a stream that has what it was to hold by the
    /// version `looked`; `None`, if by the `news` anything else has changed than what these same resources are.
    pub fn parts_of(&self, news: &News, snapshot: &Snapshot, looked: u64) -> Option<Vec<Part>> {
        if news.is_more {
            return None;
        }
        let version = snapshot.version();
        let found: Vec<(u64, Result<Part, Arc<str>>)> = {
            // A snapshot becomes the newest under this lock, and what it changes is told under it: what has come since the `news`
            // may be of this very one.
            let index = self.watchers.lock();
            let later = self.mark.news();
            if later.is_more || !later.views.is_empty() {
                return None;
            }
            let find = |id: &u64| {
                // It may look at it no more.
                let view = index.views.get(id).filter(|view| view.streams.contains(&self.id))?;
                Some((
                    *id,
                    index.made_since(*id, version, looked)?.ok_or_else(|| Arc::clone(&view.authority)),
                ))
            };
            news.views.iter().map(find).collect::<Option<_>>()?
        };
        let each = found.into_iter().map(|(id, found)| {
            let authority = match found {
                Ok(part) => return Some(part),
                Err(authority) => authority,
            };
            let (part, inputs) = view::part(snapshot, &self.clients, &authority);
            let mut index = self.watchers.lock();
            index.keep(id, version, &part, &inputs);
            index.made_since(id, version, looked)?
        });
        each.collect()
    }

    /// Looks at what it asked for as `clients` see it, to whom it belongs by `version`.
    fn belong_to(&mut self, clients: Clients, version: u64) {
        self.clients = clients;
        let mut index = self.watchers.lock();
        for (authority, id) in self.asked.lock().iter_mut() {
            let (new, _) = index.ask(self.id, &self.clients, authority);
            index.leave(self.id, std::mem::replace(id, new));
        }
        self.has_missed(&index, version);
    }

    /// What has changed since `version` was not looked for among what the stream has come to look at by it.
    fn has_missed(&self, index: &Index, version: u64) {
        if index.version > version {
            self.mark.touch(index.version, Instant::now(), None);
            self.mark.wake.ring();
        }
    }

    /// Notes what the stream holds without having asked, as it is in `version`.
    fn reads(&self, index: &mut Index, version: u64, inputs: &[Input]) {
        let Some(stream) = index.streams.get_mut(&self.id) else { return };
        if stream.inputs == inputs {
            return;
        }
        let before = std::mem::replace(&mut stream.inputs, inputs.to_owned());
        index.unread(Reader::Stream(self.id), &before);
        index.read(Reader::Stream(self.id), inputs);
        self.has_missed(index, version);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Everybody waits for the index, and there may be thousands.
        let ids: Vec<u64> = self.asked.lock().values().copied().collect();
        for ids in ids.chunks(AT_ONCE) {
            let mut index = self.watchers.lock();
            ids.iter().for_each(|id| index.leave(self.id, *id));
        }
        let mut index = self.watchers.lock();
        if let Some(stream) = index.streams.remove(&self.id) {
            index.unread(Reader::Stream(self.id), &stream.inputs);
        }
    }
}

#[cfg(test)]
mod tests;
