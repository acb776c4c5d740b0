//! What a statement would do to a table, told from its text and the catalog before it runs.
//!
//! The text is read and applied to the catalog's layout as one in the log would be; the session that will run it is taken to
//! have the server's global settings. Only the catalog is asked.

use std::cell::RefCell;
use std::collections::BTreeMap;

use chrono::Utc;

use crate::config::{Contract, Contracts, SourceConfig};
use crate::schema::{Layout, Shape, TableName};
use crate::source::{Error, Foretold, without};

use super::catalog;
use super::charset::Collations;
use super::connection::Session;
use super::ddl::{self, Spec, Unclear};
use super::fill::Moment;
use super::marker::SessionState;
use super::statement::{Named, Statement};
use super::subject::{Became, StatementSession, Subject};
use super::{layout, moment, sql_mode};

/// See the module text.
pub async fn foretell(
    config: &SourceConfig,
    contracts: &Contracts,
    shape: &Shape,
    text: &str,
) -> Result<Foretold, Error> {
    let name = &shape.lake.name;
    let mut session = Session::open(config).await?;
    let collations = catalog::collations(&mut session).await?;
    let known = catalog::table(&mut session, config, contracts, &collations, name).await?;
    let found = layout::read(&mut session, std::slice::from_ref(name)).await?.remove(name);
    let (Some(table), Some(layout)) = (known, found) else {
        return Ok(Foretold::Misfit(format!("{name} is not at the source, or `tables` does not select it")));
    };
    let settings = settings(&mut session, &collations).await?;
    let none = Contract::default();
    let before = without(table.schema, &shape.ignored);
    let subject = Subject {
        schema: &before,
        layout: Some(&layout),
        contract: contracts.get(&config.name, &name.to_string()).unwrap_or(&none),
        ignored: &shape.ignored,
        vendor: session.flavor.vendor,
        collations: &collations,
    };
    let changed = match changed(text, name, &layout, &subject, &settings) {
        Ok(changed) => changed,
        Err(told) => return Ok(told),
    };
    let Changed { became, drops_rows } = changed;
    if drops_rows {
        let why = "ALTER IGNORE drops rows that are equal in a new key, which the log does not tell";
        return Ok(Foretold::Untold(why.to_owned()));
    }
    let after = match subject.schema_of(&became.layout) {
        Ok(after) => after,
        Err(finding) => return Ok(Foretold::Stops(finding)),
    };
    let statement_session =
        StatementSession { sql_mode: settings.sql_mode, state: &settings.state, now: Some(Utc::now().timestamp()) };
    let unknown = RefCell::new(Vec::new());
    subject.steps(&became, &after, &statement_session, &|moment| {
        unknown.borrow_mut().push(moment.clone());
        None
    });
    let mut moments: BTreeMap<Moment, Option<i64>> = BTreeMap::new();
    for wanted in unknown.into_inner() {
        let answer = moment::ask(&mut session, &wanted, Some(Utc::now())).await?;
        moments.insert(wanted, answer);
    }
    let known = |wanted: &Moment| moments.get(wanted).copied().flatten();
    let steps = subject.steps(&became, &after, &statement_session, &known);
    Ok(Foretold::of(&before, &after, steps, text, Vec::new()))
}

struct Changed {
    became: Became,
    drops_rows: bool,
}

/// What the statements make of the table, one after the other; the error is an answer of its own.
fn changed(
    text: &str,
    name: &TableName,
    layout: &Layout,
    subject: &Subject<'_>,
    settings: &Settings,
) -> Result<Changed, Foretold> {
    let is_it =
        |named: &Named| named.table == name.table && named.schema.as_ref().is_none_or(|schema| *schema == name.schema);
    let unclear = |why: &str| Foretold::Unclear(why.to_owned());
    let statements: Vec<&str> = pieces(text).map_err(|Unclear| unclear("it can't be read"))?;
    let [statement] = statements.as_slice() else {
        return Err(unclear("it is several statements: plan one after the other"));
    };
    match Statement::recognise(statement) {
        Statement::Truncate(table) if is_it(&table) => return Err(Foretold::Truncate),
        Statement::Drop(tables) if tables.iter().any(is_it) => return Err(Foretold::Drop),
        Statement::Rename(pairs) if pairs.iter().any(|(from, _)| is_it(from)) => {
            let to = pairs.into_iter().find(|(from, _)| is_it(from)).map(|(_, to)| to);
            let to = to.map_or_else(
                || name.clone(),
                |to| TableName::new(to.schema.unwrap_or_else(|| name.schema.clone()), to.table),
            );
            return Err(Foretold::Rename { to });
        }
        Statement::Harmless => {}
        Statement::Replaced { tables, what } if tables.iter().any(is_it) => {
            return Err(Foretold::Untold(format!("{what}, which the log does not tell")));
        }
        _ => return Err(Foretold::Misfit(format!("the statement is not about the columns of {name}"))),
    }
    if sql_mode::is_ambiguous(settings.sql_mode, statement, subject.vendor) {
        return Err(unclear("the server's sql_mode makes words mean others"));
    }
    let alter = match ddl::read(statement, subject.vendor) {
        Ok(Some(alter)) => alter,
        Ok(None) => return Err(Foretold::Nothing),
        Err(Unclear) => return Err(unclear("its text does not tell for certain what it does")),
    };
    if !is_it(&alter.table) {
        return Err(Foretold::Misfit(format!("the statement is about `{}`, not about {name}", alter.table.table)));
    }
    let specs = alter.specs.map_err(|Unclear| unclear("its text does not tell for certain what it does"))?;
    let drops_rows = alter.ignore && specs.iter().any(|spec| matches!(spec, Spec::Unique { .. }));
    let of_mode = sql_mode::session(settings.sql_mode);
    let session = ddl::Session { strict: of_mode.strict && !alter.ignore, ..of_mode };
    let applied = ddl::apply(layout, &specs, subject.vendor).map_err(|Unclear| {
        unclear("what it makes of the table's present columns is not certain, or the server would refuse it")
    })?;
    Ok(Changed { became: Became::by_text(applied, session), drops_rows })
}

/// What statements of a session with the server's global settings depend on.
struct Settings {
    sql_mode: u64,
    state: SessionState,
}

async fn settings(session: &mut Session, collations: &Collations) -> Result<Settings, Error> {
    let answer =
        session.query("SELECT @@global.sql_mode, @@global.time_zone, @@global.explicit_defaults_for_timestamp").await?;
    let mut row = answer.rows.into_iter().next().unwrap_or_default().into_iter();
    let mut next = || row.next().flatten();
    let (mode, time_zone, explicit) = (next(), next(), next());
    // The statement came as UTF-8.
    let client = collations.id_of("utf8mb4");
    Ok(Settings {
        sql_mode: sql_mode::of_words(&mode.unwrap_or_default()),
        state: SessionState {
            time_zone,
            micros: Some(0),
            client,
            connection: client,
            explicit_timestamps: explicit.map(|on| on == "1" || on.eq_ignore_ascii_case("ON")),
        },
    })
}

/// The statements that semicolons separate, outside of quotes and comments.
fn pieces(text: &str) -> Result<Vec<&str>, Unclear> {
    let mut pieces = Vec::new();
    let (mut begin, mut quote) = (0, None);
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') if quote != Some('`') => drop(characters.next()),
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(character),
            (None, ';') => {
                pieces.push(text[begin..at].trim());
                begin = at + 1;
            }
            (None, _) => {}
        }
    }
    if quote.is_some() {
        return Err(Unclear);
    }
    pieces.push(text[begin..].trim());
    pieces.retain(|piece| !piece.is_empty());
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_at_semicolons_outside_of_quotes() {
        assert_eq!(pieces("ALTER a; DROP 'x;\\';y' ;"), Ok(vec!["ALTER a", "DROP 'x;\\';y'"]));
        assert_eq!(pieces("a `;` \";\" b"), Ok(vec!["a `;` \";\" b"]));
        assert_eq!(pieces("a 'b"), Err(Unclear));
    }
}
