//! What a writer acknowledged, and what it was doing when it died.

use super::writer::{Orders, Script};
use crate::sketch;
use crate::support::{Model, Step};

/// What a log holds; `None` if it is not created yet.
pub type State = Option<Model>;

/// What one writer said, replayed.
#[derive(Debug)]
pub struct Account {
    /// What the log may hold after the last thing acknowledged; one state as soon as a process had it open.
    states: Vec<State>,
    pub unfinished: Option<Unfinished>,
    /// Things acknowledged.
    pub steps: u64,
    /// Whether the writer had the log open at all.
    pub opened: bool,
    /// The last lines it said.
    said: String,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the writer's last words:\n{}", self.said)
    }
}

/// Something begun and not acknowledged.
#[derive(Debug)]
pub enum Unfinished {
    Creation,
    /// With the salt of its payloads.
    Step(u64, Step),
}

impl Account {
    /// Reads what a writer said that began with one of `states`.
    pub fn of(said: &str, states: Vec<State>, orders: &Orders) -> Account {
        let mut account = Account {
            states,
            unfinished: None,
            steps: 0,
            opened: false,
            said: last_lines(said),
        };
        let mut script = Script::new(orders);
        // Of the last line a part may be missing; it was not said then.
        let whole = said
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        for line in whole {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("opened", found) => account.on_opened(found),
                ("begin", "creation") => account.unfinished = Some(Unfinished::Creation),
                ("begin", step) => account.on_begin(step, &mut script),
                ("done", "") => account.on_done(),
                _ => {} // The test harness speaks too.
            }
        }
        account
    }

    fn on_opened(&mut self, found: &str) {
        let tell = |state: &State| state.as_ref().map(sketch);
        let states = &self.states;
        let place = states
            .iter()
            .position(|state| tell(state).as_deref() == Some(found));
        let place = place.unwrap_or_else(|| {
            let told: Vec<_> = states.iter().map(tell).collect();
            panic!("a process opened\n  {found}\npossible\n  {told:?}")
        });
        self.states = vec![self.states.swap_remove(place)];
        self.opened = true;
        self.unfinished = None;
    }

    fn on_begin(&mut self, said: &str, script: &mut Script) {
        let (salt, step) = script.next(self.open_model());
        assert_eq!(said, format!("{step:?}"), "the writer has another script");
        self.unfinished = Some(Unfinished::Step(salt, step));
    }

    fn open_model(&self) -> &Model {
        let [Some(model)] = &self.states[..] else {
            panic!("a step before the log was open");
        };
        model
    }

    fn on_done(&mut self) {
        self.states = vec![self.possible().pop().unwrap()];
        self.unfinished = None;
        self.steps += 1;
    }

    /// What the log may hold. The last is what it holds when the unfinished step is done.
    pub fn possible(&self) -> Vec<State> {
        match &self.unfinished {
            None => self.states.clone(),
            Some(Unfinished::Creation) => vec![None, Some(Model::empty())],
            Some(Unfinished::Step(salt, step)) => {
                let models = self.open_model().outcomes(step, *salt);
                models.into_iter().map(Some).collect()
            }
        }
    }
}

fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
