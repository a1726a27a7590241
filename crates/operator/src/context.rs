use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;

use crate::control::Control;
use crate::event::Note;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::watches::Stores;
use crate::writer::Writer;

/// Everything that a reconcile needs.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) stores: Stores,
    pub(crate) writer: Writer,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) queue: Arc<Queue>,
    /// The last event that was published about an object's removal: each is told once.
    told: Mutex<HashMap<String, Note>>,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        stores: Stores,
        writer: Writer,
        control: Arc<dyn Control>,
        queue: Arc<Queue>,
    ) -> Self {
        Self { client, settings, stores, writer, control, queue, told: Mutex::default() }
    }

    /// Publishes an event unless the last one about the object was the same.
    pub(crate) async fn tell_once(&self, note: Note, about: &ObjectReference) {
        let uid = about.uid.clone().unwrap_or_default();
        let known = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, note.clone());
        if known.as_ref() != Some(&note) {
            self.writer.publish(&note, about).await;
        }
    }

    /// The object is gone: nothing more will be told about it.
    pub(crate) fn forget(&self, uid: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
