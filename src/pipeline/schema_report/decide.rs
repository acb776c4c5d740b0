//! Writes down what somebody decided about a change that waits.

use chrono::Utc;
use serde::Serialize;
use uuid::Uuid;

use super::pending::{Pending, PendingKind, pending};
use super::{Place, ReportError, question};
use crate::config::Config;
use crate::ledger::{Decided, Lease};
use crate::schema::{HeldAction, Shape, Verdict};

/// What `lakeward schema approve` and `reject` tell.
#[derive(Clone, Debug, Serialize)]
pub struct DecisionReport {
    pub source: String,
    pub table: String,
    pub change: Uuid,
    pub verdict: Verdict,
    /// Who decided and when; an earlier decision of the same kind stands.
    pub decided: String,
    /// What will happen, in words.
    pub effect: Vec<String>,
    /// When, in words.
    pub when: String,
    /// A daemon runs the source now.
    pub running: bool,
}

/// Decides about the change of this id, or of an id that begins so; about the only one that waits when none is named.
pub async fn decide_change(
    config: &Config,
    table: &str,
    change: Option<&str>,
    verdict: Verdict,
    by: String,
) -> Result<DecisionReport, ReportError> {
    let place = Place::find(config, table)?;
    let log = place.log().await?;
    let state = place.state(&log, None).await?;
    let (decisions, entry) = (place.decisions()?, place.entry().await?);
    let waiting = pending(&place, &state.shape, &decisions, entry.as_ref()).await?;
    let chosen = choose(&waiting, change, &place.name.to_string())?;
    let wanted = Decided { change: chosen.change, table: place.name.to_string(), verdict, by, at: Utc::now() };
    let decided = decisions.write(&wanted).await?;
    if decided.verdict != verdict {
        return Err(question(format!(
            "change {} of {} was {decided}, and that stands: a decision is taken once",
            chosen.change, place.name
        )));
    }
    let holder = Lease::holder(place.store()?).await?;
    let when = match &holder {
        Some(holder) => format!(
            "lakeward runs on {} (process {}) and acts within seconds, at its next commit",
            holder.host, holder.pid
        ),
        None => "lakeward does not run for this source: it acts when it is started next".to_owned(),
    };
    Ok(DecisionReport {
        source: place.source.name.clone(),
        table: place.name.to_string(),
        change: chosen.change,
        verdict,
        decided: decided.to_string(),
        effect: effect(&state.shape, chosen, verdict),
        when,
        running: holder.is_some(),
    })
}

fn choose<'p>(waiting: &'p [Pending], wanted: Option<&str>, table: &str) -> Result<&'p Pending, ReportError> {
    let listed =
        || -> String { waiting.iter().map(|one| format!("\n  {}  {}", one.change, one.steps.join("; "))).collect() };
    match (waiting, wanted) {
        ([], _) => Err(question(format!("nothing of {table} waits for a decision"))),
        ([only], None) => Ok(only),
        (_, None) => Err(question(format!("several changes of {table} wait for a decision: name one{}", listed()))),
        (_, Some(wanted)) => {
            let wanted = wanted.to_lowercase();
            let mut matching = waiting.iter().filter(|one| one.change.to_string().starts_with(&wanted));
            match (matching.next(), matching.next()) {
                (Some(one), None) => Ok(one),
                (Some(_), Some(_)) => {
                    Err(question(format!("several changes of {table} begin with `{wanted}`: {}", listed())))
                }
                (None, _) => Err(question(format!(
                    "no change `{wanted}` of {table} waits for a decision; these do:{}",
                    listed()
                ))),
            }
        }
    }
}

fn effect(shape: &Shape, change: &Pending, verdict: Verdict) -> Vec<String> {
    if change.kind == PendingKind::Waits {
        let text = match verdict {
            Verdict::Approve => {
                "the table goes on behind the change; where its rows can't be carried through, it stops and says how to load it \
                 again"
            }
            Verdict::Reject => "the table stops before the change, and keeps what it has",
        };
        return vec![text.to_owned()];
    }
    let held = shape.held.iter().find(|held| held.id == change.change);
    let actions = held.map(|held| held.actions.as_slice()).unwrap_or_default();
    actions
        .iter()
        .map(|action| match (action, verdict) {
            (HeldAction::Show { column }, Verdict::Approve) => {
                format!("column `{column}` is shown, with the values that it has had since it was added")
            }
            (HeldAction::Show { column }, Verdict::Reject) => {
                format!("column `{column}` is removed from the lake's files and left out from then on")
            }
            (HeldAction::Drop { column }, Verdict::Approve) => format!("column `{column}` is removed from the lake"),
            (HeldAction::Drop { column }, Verdict::Reject) => {
                format!("column `{column}` stays in the lake; it is NULL in rows from after the drop")
            }
            (HeldAction::Rename { column, to }, Verdict::Approve) => format!("column `{column}` is renamed to `{to}`"),
            (HeldAction::Rename { column, to }, Verdict::Reject) => {
                format!("column `{column}` keeps this name in the lake; at the source it is `{to}`")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(ids: &[u128]) -> Vec<Pending> {
        ids.iter()
            .map(|id| Pending {
                change: Uuid::from_u128(*id),
                kind: PendingKind::Held,
                at: None,
                place: "0-1-7".into(),
                statement: None,
                steps: vec![format!("step {id}")],
                decided: None,
                approve: String::new(),
                reject: String::new(),
            })
            .collect()
    }

    #[test]
    fn a_change_is_chosen_by_the_beginning_of_its_id_or_by_being_alone() {
        let choose = |ids: &[u128], wanted: Option<&str>| {
            let waiting = waiting(ids);
            choose(&waiting, wanted, "shop.goods").map(|one| one.change.as_u128()).map_err(|error| error.to_string())
        };
        let (one, other) = (0xaaaa << 112, 0xaabb << 112);
        assert_eq!(choose(&[one], None), Ok(one));
        assert_eq!(choose(&[one, other], Some("AABB")), Ok(other));
        assert!(choose(&[], None).is_err_and(|error| error.contains("nothing of shop.goods waits")));
        for wanted in [None, Some("aa"), Some("ff")] {
            let told = choose(&[one, other], wanted).expect_err("not one");
            assert!(told.contains("aaaa0000-") && told.contains("aabb0000-"), "{told}");
        }
    }
}
