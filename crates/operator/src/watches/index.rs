use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use kube::Resource;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;

/// What an object is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Term {
    /// The host name that a Service asks for, or that a configuration gives.
    Hostname(String),
    /// The UID of the object that it is, or was made for.
    Uid(String),
    /// The device that is written down of a proxy, or that a proxy says to be.
    Device(String),
    /// The StatefulSet of what is made for it.
    Proxy(String),
}

/// Objects of one kind as they were last seen, found by name or by their terms: a cluster has thousands, and each is looked
/// at with few others in mind.
#[derive(Clone)]
pub(crate) struct Indexed<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    index: Arc<RwLock<Index<ObjectRef<K>>>>,
}

/// What an object of a kind is found by.
type TermsOf<K> = Box<dyn Fn(&K) -> Vec<Term> + Send>;

/// Writes what a watch sees into the store of its kind, and into the store's index.
pub(super) struct Scribe<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: reflector::store::Writer<K>,
    index: Arc<RwLock<Index<ObjectRef<K>>>>,
    /// What a list that is under way has brought so far: it takes the place of all that was known.
    listed: Index<ObjectRef<K>>,
    terms: TermsOf<K>,
}

/// An empty store, and who writes into it; `terms` says what an object is found by.
pub(super) fn indexed<K>(terms: impl Fn(&K) -> Vec<Term> + Send + 'static) -> (Indexed<K>, Scribe<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, writer) = reflector::store();
    let index: Arc<RwLock<Index<ObjectRef<K>>>> = Arc::default();
    let scribe = Scribe { writer, index: index.clone(), listed: Index::default(), terms: Box::new(terms) };
    (Indexed { store, index }, scribe)
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Indexed<K> {
    /// The objects that are found by a term, in any order.
    pub(super) fn found_by(&self, term: &Term) -> Vec<Arc<K>> {
        let found = self.index.read().unwrap_or_else(PoisonError::into_inner).find(term);
        found.iter().filter_map(|object| self.store.get(object)).collect()
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Deref for Indexed<K> {
    type Target = Store<K>;

    fn deref(&self) -> &Store<K> {
        &self.store
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Scribe<K> {
    /// Takes what the watch has seen.
    pub(super) fn write(&mut self, event: &Event<K>) {
        self.writer.apply_watcher_event(event);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) => index.put(ObjectRef::from_obj(object), (self.terms)(object)),
            Event::Delete(object) => index.remove(&ObjectRef::from_obj(object)),
            Event::Init => self.listed = Index::default(),
            Event::InitApply(object) => self.listed.put(ObjectRef::from_obj(object), (self.terms)(object)),
            Event::InitDone => *index = std::mem::take(&mut self.listed),
        }
    }
}

/// Objects by their terms.
#[derive(Debug)]
struct Index<T> {
    terms: HashMap<T, Vec<Term>>,
    found: HashMap<Term, HashSet<T>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { terms: HashMap::new(), found: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Index<T> {
    /// Has an object found by these terms, and by no others any more.
    fn put(&mut self, object: T, terms: Vec<Term>) {
        self.remove(&object);
        if terms.is_empty() {
            return;
        }
        for term in &terms {
            self.found.entry(term.clone()).or_default().insert(object.clone());
        }
        self.terms.insert(object, terms);
    }

    fn remove(&mut self, object: &T) {
        for term in self.terms.remove(object).unwrap_or_default() {
            if let Some(found) = self.found.get_mut(&term) {
                found.remove(object);
                if found.is_empty() {
                    self.found.remove(&term);
                }
            }
        }
    }

    fn find(&self, term: &Term) -> Vec<T> {
        self.found.get(term).into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;

    use super::*;

    fn hostname(name: &str) -> Term {
        Term::Hostname(name.to_owned())
    }

    /// An object that is found by the names in its data.
    fn object(name: &str, hostnames: &[&str]) -> ConfigMap {
        let data = hostnames.iter().map(|hostname| ((*hostname).to_owned(), String::new())).collect();
        let mut object = ConfigMap { data: Some(data), ..ConfigMap::default() };
        object.metadata.name = Some(name.to_owned());
        object
    }

    fn by_data() -> (Indexed<ConfigMap>, Scribe<ConfigMap>) {
        indexed(|object: &ConfigMap| object.data.iter().flatten().map(|(key, _)| hostname(key)).collect())
    }

    fn found(objects: &Indexed<ConfigMap>, name: &str) -> Vec<String> {
        let mut names: Vec<String> = objects.found_by(&hostname(name)).iter().map(|object| object.name_any()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_object_is_found_by_what_it_is_about_now() {
        let (objects, mut scribe) = by_data();
        scribe.write(&Event::Apply(object("a", &["x", "y"])));
        scribe.write(&Event::Apply(object("b", &["y"])));
        assert_eq!(
            (found(&objects, "x"), found(&objects, "y")),
            (vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()])
        );
        scribe.write(&Event::Apply(object("a", &["z"])));
        assert_eq!(
            (found(&objects, "x").len(), found(&objects, "y"), found(&objects, "z").len()),
            (0, vec!["b".to_owned()], 1)
        );
        scribe.write(&Event::Delete(object("b", &["y"])));
        assert!(found(&objects, "y").is_empty());
        assert!(objects.index.read().unwrap().found.len() == 1, "what nobody is found by takes no room");
    }

    #[test]
    fn what_a_new_list_does_not_have_is_found_no_more() {
        let (objects, mut scribe) = by_data();
        scribe.write(&Event::Apply(object("a", &["x"])));
        scribe.write(&Event::Init);
        scribe.write(&Event::InitApply(object("b", &["y"])));
        // Until the list is whole the one before holds.
        assert_eq!((found(&objects, "x").len(), found(&objects, "y").len()), (1, 0));
        scribe.write(&Event::InitDone);
        assert_eq!((found(&objects, "x").len(), found(&objects, "y").len()), (0, 1));
    }
}
