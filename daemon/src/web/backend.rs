//! The node, as the console asks it: this one by itself, the other one over the link, users by the
//! document of the pair.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duolog_console::api::actions::{ActionRequest, Estimate, On, Outcome};
use duolog_console::api::cluster::{Cluster, NodeStanding, VirtualIp};
use duolog_console::api::history::{History, HistoryQuery, NodeSample};
use duolog_console::api::logs::{Log, LogForm, LogPage, LogQuery};
use duolog_console::api::problem::{Problem, Why};
use duolog_console::api::records::{
    Branch, Dropped, Information, Receipt, SettingsQuery, SettingsVersion,
};
use duolog_console::api::session::Role;
use duolog_console::api::status::{SettingsFrom, Stamp, Status};
use duolog_console::api::users::{
    SettingsChanged, SettingsChecked, SettingsDraft, UserEdit, UserEntry,
};
use duolog_console::{About, Asker, Backend, Denied, Report, User};
use serde::de::DeserializeOwned;

use super::auth::{self, Caller, Doorman};
use super::neighbour::{Heard, Known, Neighbour};
use super::own::{Inquiry, Own, Standing, ask};
use crate::actions::{Refusal, Step, Target, Wish};
use crate::control::Answer;
use crate::document;
use crate::dump;
use crate::logs::By;
use crate::member::Member;
use crate::pair::wall_ms;
use crate::users::{Refused, Users, Who, without_hashes};

/// The node that the console runs in.
#[derive(Debug)]
pub(super) struct Here {
    pub own: Arc<Own>,
    pub users: Arc<Users>,
    pub doorman: Doorman,
    pub neighbour: Arc<Neighbour>,
}

fn user(Who { name, role, .. }: Who) -> User {
    User { name, role }
}

fn denied(refused: &Refused) -> Denied {
    match refused {
        Refused::TooMany => Denied::TooMany,
        _ => Denied::Unknown,
    }
}

impl Here {
    /// Asks a node: this one, or the other one.
    fn of<T: DeserializeOwned + Send + 'static>(
        &self,
        node: u8,
        here: impl FnOnce(&Own) -> Result<T, Problem>,
        there: Inquiry,
    ) -> Result<T, Problem> {
        if node == self.own.node() {
            return here(&self.own);
        }
        let none = || Problem::new(Why::NotFound, "there is no other node");
        ask(self.own.member.across().ok_or_else(none)?, there)
    }

    /// This node, as it stands.
    fn here(&self) -> NodeStanding {
        let Standing { host, switches, status, .. } = self.own.standing();
        let serves = match &*self.own.member {
            Member::Pair(pair) => pair.stands().serves,
            Member::Fixed { .. } => status.directories.iter().any(|directory| directory.mounted),
        };
        NodeStanding {
            node: self.own.node(),
            here: true,
            host: Some(host),
            state: Some(status.state),
            sentence: Some(status.sentence.clone()),
            data_sync: Some(status.data_sync),
            serves: Some(serves),
            reached: true,
            age_ms: Some(0),
            trouble: None,
            switches,
            status: Some(status),
            status_age_ms: Some(0),
        }
    }

    /// The other one, as far as it is known.
    fn there(&self) -> NodeStanding {
        let Known { stands, all, trouble } = self.neighbour.known();
        let node = 3 - self.own.node();
        let reached = stands.as_ref().is_some_and(Heard::fresh);
        let silent = || {
            format!(
                "node{node} does not answer; check that duolog runs there and that heartbeats get \
                 through (duolog status)"
            )
        };
        let is = stands.as_ref().map(|stands| &stands.what);
        NodeStanding {
            node,
            here: false,
            host: all.as_ref().map(|all| all.what.host.clone()),
            state: is.map(|is| is.state),
            sentence: is.map(|is| is.sentence.clone()),
            data_sync: is.map(|is| is.data_sync),
            serves: is.map(|is| is.serves),
            reached,
            age_ms: stands.as_ref().map(Heard::age_ms),
            trouble: if reached { trouble } else { Some(silent()) },
            switches: all.as_ref().and_then(|all| all.what.switches),
            status_age_ms: all.as_ref().map(Heard::age_ms),
            status: all.map(|all| all.what.status),
        }
    }
}

/// Who has each of the clients' addresses. What an old status says of another node counts for nothing
/// once this one has the address.
fn owners(nodes: &[NodeStanding]) -> Vec<VirtualIp> {
    let mut all = Vec::<VirtualIp>::new();
    let known =
        |node: &NodeStanding| node.status.clone().map(|status| (node.node, node.here, status));
    let mut statuses = nodes.iter().filter_map(known).collect::<Vec<(u8, bool, Status)>>();
    statuses.sort_by_key(|(_, here, _)| !here);
    for (node, _, status) in statuses {
        for address in status.virtual_ips {
            let at = all.iter().position(|known| known.address == address.address);
            let (owner, device) = (address.here.then_some(node), address.device);
            match at.map(|at| &mut all[at]) {
                None => all.push(VirtualIp {
                    address: address.address,
                    owner,
                    device,
                    trouble: address.trouble,
                }),
                Some(known) => {
                    if known.owner.is_none() && owner.is_some() {
                        (known.owner, known.device) = (owner, device);
                    }
                    known.trouble = known.trouble.take().or(address.trouble);
                }
            }
        }
    }
    all
}

impl Backend for Here {
    fn about(&self) -> About {
        About { cluster: self.own.config.cluster.to_string(), node: self.own.node() }
    }

    fn by_password(&self, name: &str, password: &str, from: IpAddr) -> Result<User, Denied> {
        let runtime = tokio::runtime::Handle::current();
        let who = runtime.block_on(self.users.by_password(name, password, from));
        who.map(user).map_err(|refused| denied(&refused))
    }

    fn by_certificate(&self, der: &[u8]) -> Result<User, Denied> {
        self.users.by_certificate(der).map(user).map_err(|refused| denied(&refused))
    }

    fn by_token(&self, token: &[u8], from: IpAddr) -> Result<(), Denied> {
        let caller = Caller { from, certificate: None };
        let authorization = [b"Bearer ", token].concat();
        match self.doorman.who(&caller, Some(&authorization), Instant::now()) {
            Ok(_) => Ok(()),
            Err(auth::Denied::TooMany) => Err(Denied::TooMany),
            Err(_) => Err(Denied::Unknown),
        }
    }

    fn role_of(&self, name: &str) -> Option<Role> {
        self.users.role_of(name)
    }

    fn password_mark(&self, name: &str) -> u64 {
        self.users.password_mark(name)
    }

    fn has_users(&self) -> bool {
        !self.own.member.documents().people().users.is_empty()
    }

    fn cluster(&self) -> Cluster {
        let mut nodes = vec![self.here()];
        if self.own.config.peer.is_some() {
            nodes.push(self.there());
        }
        nodes.sort_by_key(|node| node.node);
        Cluster {
            cluster: self.own.config.cluster.to_string(),
            asked: self.own.node(),
            at_ms: wall_ms(),
            virtual_ips: owners(&nodes),
            nodes,
        }
    }

    fn look(&self) {
        self.neighbour.look();
    }

    fn look_now(&self) {
        self.neighbour.look_now();
    }

    fn samples(&self) -> Vec<NodeSample> {
        let own = self.own.newest().map(|sample| (self.own.node(), sample));
        let all = self.neighbour.known().all;
        let other = all.and_then(|all| Some((3 - self.own.node(), all.what.sample?)));
        own.into_iter().chain(other).map(|(node, sample)| NodeSample { node, sample }).collect()
    }

    fn act(
        &self,
        asker: &Asker,
        request: &ActionRequest,
        report: Report<'_>,
    ) -> Result<Vec<Outcome>, Problem> {
        let wish = Wish::of(&request.action);
        let target = match request.on {
            On::Both => Target::Both,
            On::Node1 if self.own.node() == 1 => Target::Here,
            On::Node2 if self.own.node() == 2 => Target::Here,
            On::Node1 | On::Node2 => Target::Other,
        };
        let mut arguments = wish.arguments();
        arguments.push(format!("--node={}", target.name()));
        let by = By::console(&asker.name, asker.from);
        let running = self.own.logs.action(by, wish.name(), &arguments, wish.reason());
        let refuse = |why: Why, text: String| Err(Problem::new(why, text));
        // Asked again of the settings that this node has now; the other one asks its own.
        let came = if self.role_of(&asker.name).is_none_or(|role| role < wish.needs()) {
            let needs = wish.needs().name().into();
            let why = Refusal::Role { needs };
            refuse(Why::Forbidden, format!("node{} refuses: {why}", self.own.node()))
        } else {
            match &*self.own.member {
                Member::Fixed { .. } => refuse(Why::Refused, Refusal::FixedRole.to_string()),
                Member::Pair(pair) => {
                    let wait = Duration::from_secs(request.wait_s);
                    let mut step = |at: Step| report(at.node, at.standing);
                    pair.actions_of_console(asker.from)
                        .follow(&wish, target, &asker.name, wait, &mut step)
                        .map_err(|error| Problem::new(Why::Refused, error.to_string()))
                }
            }
        };
        let outcome = match &came {
            Ok(outcomes) => Answer::Acted { outcomes: outcomes.clone() }.outcome(),
            Err(problem) => Answer::Refused(problem.text.clone()).outcome(),
        };
        running.end(&outcome.unwrap_or_default());
        came
    }

    fn estimate(&self) -> Result<Estimate, Problem> {
        match self.own.estimate() {
            // It is asked of the node that would send.
            Err(problem) if problem.why == Why::Refused => match self.own.member.across() {
                Some(across) => ask(across, Inquiry::Estimate),
                None => Err(problem),
            },
            told => told,
        }
    }

    fn log(&self, node: u8, log: Log, query: &LogQuery) -> Result<LogPage, Problem> {
        let there = Inquiry::Log { log, query: query.clone() };
        self.of(node, |own| own.log(log, query), there)
    }

    fn log_file(
        &self,
        node: u8,
        log: Log,
        query: &LogQuery,
        form: LogForm,
    ) -> Result<Vec<u8>, Problem> {
        let there = Inquiry::LogFile { log, query: query.clone(), form };
        Ok(self.of(node, |own| own.log_file(log, query, form), there)?.into_bytes())
    }

    fn receipts(&self, node: u8) -> Result<Vec<Receipt>, Problem> {
        self.of(node, Own::receipts, Inquiry::Receipts)
    }

    fn branches(&self, node: u8) -> Result<Vec<Branch>, Problem> {
        self.of(node, Own::branches, Inquiry::Branches)
    }

    fn drop_branch(&self, asker: &Asker, node: u8, name: &str) -> Result<Dropped, Problem> {
        let (who, from) = (asker.name.clone(), asker.from);
        let there = Inquiry::DropBranch { name: name.to_owned(), who, from };
        let by = By::console(&asker.name, from);
        self.of(node, |own| own.drop_branch(name, &asker.name, by), there)
    }

    fn information(&self, node: u8) -> Result<Information, Problem> {
        self.of(node, |own| Ok(own.information()), Inquiry::Information)
    }

    fn history(&self, node: u8, query: &HistoryQuery) -> Result<History, Problem> {
        self.of(node, |own| Ok(own.history(query)), Inquiry::History(*query))
    }

    fn settings(&self, query: &SettingsQuery) -> Result<SettingsVersion, Problem> {
        let documents = self.own.member.documents();
        match document::answer_show(&documents, query.version, query.node) {
            Answer::Settings(document) => {
                let mut told = document::told(document.map(|document| *document));
                told.text = without_hashes(&told.text);
                Ok(told)
            }
            // They stand in the node's own file, which Information shows.
            Answer::Refused(_) if documents.in_file() => {
                let (from, text) = (SettingsFrom::File, self.own.information().configuration);
                Ok(SettingsVersion { from, stamp: None, text })
            }
            Answer::Refused(why) => Err(Problem::new(Why::NotFound, why)),
            _ => Err(Problem::new(Why::Unavailable, "the node answered another question")),
        }
    }

    fn settings_history(&self) -> Result<Vec<Stamp>, Problem> {
        let history = self.own.member.documents().history();
        Ok(history.into_iter().map(|document| document.stamp).collect())
    }

    fn check_settings(&self, draft: &SettingsDraft) -> Result<SettingsChecked, Problem> {
        self.checked(draft)
    }

    fn change_settings(
        &self,
        asker: &Asker,
        draft: &SettingsDraft,
    ) -> Result<SettingsChanged, Problem> {
        self.changed(asker, draft)
    }

    fn users(&self) -> Result<Vec<UserEntry>, Problem> {
        Ok(self.told_users())
    }

    fn edit_users(
        &self,
        asker: &Asker,
        edit: &UserEdit,
        here: bool,
    ) -> Result<SettingsChanged, Problem> {
        self.carry_out(asker, edit, here)
    }

    fn snapshot(&self, asker: &Asker, to: &mut dyn io::Write) -> Result<(), Problem> {
        let by = By::console(&asker.name, asker.from);
        let running = self.own.logs.action(by, "snapshot", &[], None);
        let made = dump::unnamed_snapshot(&self.own.config, &self.own.file);
        let made = made.and_then(|(mut file, missing)| {
            io::copy(&mut file, to)?;
            to.flush()?;
            Ok(missing)
        });
        match made {
            Ok(missing) if missing.is_empty() => running.end("done"),
            Ok(missing) => running.end(&format!("done, without {}", missing.join("; "))),
            Err(error) => {
                running.end(&format!("failed: {error:#}"));
                let text = format!("no snapshot can be made: {error:#}");
                return Err(Problem::new(Why::Unavailable, text));
            }
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        self.own.metrics.page()
    }

    fn said(&self, who: &str, from: IpAddr, what: &str, outcome: &str) {
        self.own.logs.action(By::console(who, from), what, &[], None).end(outcome);
    }
}
