//! Two nodes without a network between them: what they say is carried by hand.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::super::agree::{Author, Changed, Documents, Live, Other};
use super::super::refused::ChangeError;
use super::super::said::{Asked, Said, Ways};
use super::super::*;
use crate::config::{Config, Shared};

/// Carries what is asked; where it is cut nothing comes back.
#[derive(Default)]
pub(super) struct Cable {
    pub(super) to: OnceLock<Arc<Documents>>,
    pub(super) cut: AtomicBool,
    /// Lets so many answers through, and loses the one after them.
    pub(super) loses: Mutex<Option<usize>>,
    /// Done before an offer is brought.
    pub(super) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(super) asked: AtomicUsize,
}

impl Ways for Cable {
    fn ask(&self, what: Asked, _patience: Duration) -> Option<Said> {
        if self.cut.load(Ordering::SeqCst) {
            return None;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        if matches!(what, Asked::Keep { .. }) {
            let first = self.meanwhile.lock().unwrap().take();
            if let Some(first) = first {
                first();
            }
        }
        // As words cross.
        let what = serde_json::from_slice(&serde_json::to_vec(&what).unwrap()).unwrap();
        let said = self.to.get().unwrap().answer(what);
        let mut loses = self.loses.lock().unwrap();
        match &mut *loses {
            Some(0) => {
                *loses = None;
                return None;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Some(said)
    }
}

/// Writes down what takes effect.
#[derive(Default)]
pub(super) struct Seen(pub(super) Mutex<Vec<u64>>);

impl Live for Arc<Seen> {
    fn apply(&self, _was: &Shared, new: &Shared) {
        self.0.lock().unwrap().push(new.pair.resync_bytes_per_s);
    }
}

pub(super) struct Node {
    pub(super) documents: Arc<Documents>,
    /// From this node to the other one.
    pub(super) cable: Arc<Cable>,
    pub(super) live: Arc<Seen>,
}

impl Node {
    pub(super) fn new(number: u8, home: &Path, tables: &str) -> Self {
        let state = home.join(format!("state{number}"));
        let text = format!(
            "[cluster]\nid = \"00000000000000000000000000000001\"\n[node]\nnumber = {number}\n\
             state_dir = {state:?}\ncertificate = \"c\"\nkey = \"k\"\npair_key = \"p\"\n[peer]\n\
             address = \"10.0.0.2:1\"\nfingerprint = \"sha256:{}\"\n[[directory]]\n\
             path = \"/data\"\n[witness]\naddress = \"10.0.0.3:1\"\nkey = \"w\"\n{tables}",
            "0".repeat(64)
        );
        let file = home.join(format!("{number}.toml"));
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let cable = Arc::new(Cable::default());
        let documents = Arc::new(Documents::load(&config, Other::Ways(cable.clone())));
        let live = Arc::new(Seen::default());
        documents.goes_live(Box::new(live.clone()));
        Self { documents, cable, live }
    }

    pub(super) fn name(&self) -> Option<Name> {
        self.documents.history().last().map(Document::name)
    }

    pub(super) fn change(&self, text: &str, here: bool) -> Result<Changed, ChangeError> {
        self.documents.change(self.name().as_ref(), text.into(), "root".to_owned().into(), here)
    }

    /// The same over this node's console.
    pub(super) fn changes_by_console(
        &self,
        text: &str,
        here: bool,
    ) -> Result<Changed, ChangeError> {
        let author = Author { who: "ann".into(), console: true };
        self.documents.change(self.name().as_ref(), text.into(), author, here)
    }

    pub(super) fn compare(&self) {
        self.documents.compare(&*self.cable);
    }

    pub(super) fn text(&self) -> String {
        self.documents.history().last().unwrap().text.clone()
    }

    /// Whether node1's version of that number is here.
    pub(super) fn name_of(&self, version: u64) -> bool {
        let history = self.documents.history();
        history.iter().any(|it| (it.stamp.version, it.stamp.node) == (version, 1))
    }

    pub(super) fn is_cut(&self, cut: bool) {
        self.cable.cut.store(cut, Ordering::SeqCst);
    }
}

/// Which console may change what is run, by the nodes' own files.
pub(super) fn pair_with_consoles(home: &Path, may: [bool; 2]) -> (Node, Node) {
    let [one, two] = [1, 2].map(|node| {
        let may = may[usize::from(node) - 1];
        Node::new(node, home, &format!("[web]\nchange_commands = {may}\n"))
    });
    connect(&one, &two);
    (one, two)
}

pub(super) fn connect(one: &Node, two: &Node) {
    assert!(one.cable.to.set(two.documents.clone()).is_ok());
    assert!(two.cable.to.set(one.documents.clone()).is_ok());
}

pub(super) fn pair(home: &Path) -> (Node, Node) {
    let (one, two) = (Node::new(1, home, ""), Node::new(2, home, ""));
    connect(&one, &two);
    (one, two)
}

pub(super) fn rate(bytes: u64) -> String {
    format!(
        "[pair]\n# as fast as the disks go, {}\nresync_bytes_per_s = {bytes}\n",
        "\"".repeat(2000)
    )
}
