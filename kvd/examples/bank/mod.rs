//! A bank as a replicated state machine: the whole of it.

use kvd::machine::{State, StateMachine, View};
use serde::{Deserialize, Serialize};

pub(crate) struct Bank;

/// Money moves from one account to another, or comes in as cash.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) amount: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("the account holds {balance}")]
pub(crate) struct Overdrawn {
    pub(crate) balance: u64,
}

impl StateMachine for Bank {
    const NAME: &'static str = "bank";
    type Command = Order;
    type Answer = u64; // What the receiver holds now.
    type Rejection = Overdrawn;
    type Question = String; // Whose balance?
    type Reply = u64;

    fn apply(&self, state: &mut State<'_>, order: Order) -> Result<u64, Overdrawn> {
        let amount = u64::from(order.amount);
        if let Some(from) = &order.from {
            let balance: u64 = state.load(from).unwrap_or(0);
            let left = balance.checked_sub(amount).ok_or(Overdrawn { balance })?;
            state.store(from, &left);
        }
        let balance = state.load(&order.to).unwrap_or(0) + amount;
        state.store(&order.to, &balance);
        Ok(balance)
    }

    fn query(&self, view: &View<'_>, account: String) -> u64 {
        view.load(&account).unwrap_or(0)
    }
}
