//! What the console asks of the node that it runs in.
//!
//! Everything here may block but where it is said: it is called on threads that nothing else waits for.
//! The node decides; the console carries questions to it and answers back.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::actions::{ActionRequest, Estimate, Outcome, SeatStanding};
use crate::api::cluster::Cluster;
use crate::api::history::{History, HistoryQuery, NodeSample};
use crate::api::logs::{Log, LogForm, LogPage, LogQuery};
use crate::api::problem::Problem;
use crate::api::records::{Branch, Dropped, Information, Receipt, SettingsQuery, SettingsVersion};
use crate::api::session::{By, Role};
use crate::api::status::Stamp;
use crate::api::users::{SettingsChanged, SettingsChecked, SettingsDraft, UserEdit, UserEntry};

/// What of the node never changes while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The pair, 32 hex digits.
    pub cluster: String,
    /// 1 or 2.
    pub node: u8,
}

/// A user, as the node knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What they may do now.
    pub role: Role,
}

/// Why somebody counts for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The credentials are wrong, or count no more.
    Unknown,
    /// Too many wrong ones came from there, or with that name.
    TooMany,
}

/// A user who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The name.
    pub name: String,
    /// What they may do, asked at this request.
    pub role: Role,
    /// How they are known.
    pub by: By,
    /// Where they ask from.
    pub from: IpAddr,
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.from)
    }
}

/// Told how a node stands while an action goes on.
pub type Report<'a> = &'a mut dyn FnMut(u8, SeatStanding);

/// The node.
pub trait Backend: Send + Sync + 'static {
    /// What never changes. Does not block.
    fn about(&self) -> About;

    /// Who has that password. Takes its time whether it is right or not.
    ///
    /// # Errors
    /// Nobody, or nobody is looked at now.
    fn by_password(&self, name: &str, password: &str, from: IpAddr) -> Result<User, Denied>;
    /// Whose certificate that is. Does not block.
    ///
    /// # Errors
    /// Nobody's, or it was revoked.
    fn by_certificate(&self, der: &[u8]) -> Result<User, Denied>;
    /// Whether this is the token of those who read metrics.
    ///
    /// # Errors
    /// It is not, or is not looked at now.
    fn by_token(&self, token: &[u8], from: IpAddr) -> Result<(), Denied>;
    /// What a user may do now; nothing where there is none of that name any more. Does not block.
    fn role_of(&self, name: &str) -> Option<Role>;
    /// What differs once a user has another password, and says nothing else. Does not block.
    fn password_mark(&self, name: &str) -> u64;
    /// Whether anybody could log in. Does not block.
    fn has_users(&self) -> bool;

    /// Both nodes, as far as this one knows. Does not block: what is to be asked for first is old here,
    /// with its age.
    fn cluster(&self) -> Cluster;
    /// Has the other node asked again soon, because somebody looks. Does not block.
    fn look(&self);
    /// Has it asked at once, because something changed here. Does not block.
    fn look_now(&self);
    /// The newest sample of each node that is known. Does not block.
    fn samples(&self) -> Vec<NodeSample>;

    /// Has an action carried out, and follows it. The node that does it asks again whether the user may.
    ///
    /// # Errors
    /// It was refused, or came to nothing.
    fn act(
        &self,
        asker: &Asker,
        request: &ActionRequest,
        report: Report<'_>,
    ) -> Result<Vec<Outcome>, Problem>;
    /// What a resynchronisation would come to, asked of the node that serves.
    ///
    /// # Errors
    /// Nothing is known of it.
    fn estimate(&self) -> Result<Estimate, Problem>;

    /// Lines of a log of a node.
    ///
    /// # Errors
    /// They cannot be had.
    fn log(&self, node: u8, log: Log, query: &LogQuery) -> Result<LogPage, Problem>;
    /// The same as a file.
    ///
    /// # Errors
    /// They cannot be had.
    fn log_file(
        &self,
        node: u8,
        log: Log,
        query: &LogQuery,
        form: LogForm,
    ) -> Result<Vec<u8>, Problem>;
    /// Receipts of a node, oldest first.
    ///
    /// # Errors
    /// They cannot be had.
    fn receipts(&self, node: u8) -> Result<Vec<Receipt>, Problem>;
    /// Branches of a node.
    ///
    /// # Errors
    /// They cannot be had.
    fn branches(&self, node: u8) -> Result<Vec<Branch>, Problem>;
    /// Drops a branch of a node for good.
    ///
    /// # Errors
    /// It does not.
    fn drop_branch(&self, asker: &Asker, node: u8, name: &str) -> Result<Dropped, Problem>;
    /// What a node is made of.
    ///
    /// # Errors
    /// It cannot be had.
    fn information(&self, node: u8) -> Result<Information, Problem>;
    /// What charts are drawn of.
    ///
    /// # Errors
    /// It cannot be had.
    fn history(&self, node: u8, query: &HistoryQuery) -> Result<History, Problem>;
    /// A version of the settings of the pair.
    ///
    /// # Errors
    /// There is none.
    fn settings(&self, query: &SettingsQuery) -> Result<SettingsVersion, Problem>;
    /// All versions that are kept.
    ///
    /// # Errors
    /// They cannot be had.
    fn settings_history(&self) -> Result<Vec<Stamp>, Problem>;
    /// What settings would come to at this node.
    ///
    /// # Errors
    /// They are none that can be made now.
    fn check_settings(&self, draft: &SettingsDraft) -> Result<SettingsChecked, Problem>;
    /// Changes the settings of the pair, on both nodes. Asks again whether the user may.
    ///
    /// # Errors
    /// Why they are as they were.
    fn change_settings(
        &self,
        asker: &Asker,
        draft: &SettingsDraft,
    ) -> Result<SettingsChanged, Problem>;
    /// The users of the pair.
    ///
    /// # Errors
    /// They cannot be had.
    fn users(&self) -> Result<Vec<UserEntry>, Problem>;
    /// Changes them, on both nodes; `here`: though the other one may not answer. Asks again whether the user may.
    ///
    /// # Errors
    /// Why they are as they were.
    fn edit_users(
        &self,
        asker: &Asker,
        edit: &UserEdit,
        here: bool,
    ) -> Result<SettingsChanged, Problem>;
    /// Writes the ZIP of a snapshot of both nodes.
    ///
    /// # Errors
    /// It cannot be made, or `to` takes no more.
    fn snapshot(&self, asker: &Asker, to: &mut dyn io::Write) -> Result<(), Problem>;
    /// The page of metrics.
    fn metrics(&self) -> String;
    /// Says in the commands log that a user logged in or out, or could not. Does not block.
    fn said(&self, who: &str, from: IpAddr, what: &str, outcome: &str);
}

/// A node, shared.
pub type Node = Arc<dyn Backend>;
