//! From two descriptions of a table to the steps between them.
//!
//! Columns are matched by number where both sides have numbers, else by name. What the lake's table has goes on as the lake
//! has it; only what became another is settled anew by type and contract. Columns that a contract excludes or a policy
//! ignores leave no step. Where values may have changed without a trace in the log the step says so; where it can't be told
//! what happened, there is no step but an error (never a guess).

use std::collections::{BTreeSet, HashMap};

use super::attributes::{Attribute, Attributes, Description};
use super::ddl::Statement;
use super::fill::{Rewrites, fill};
use super::numbering;
use super::pgoutput::Relation;
use super::types::{self, ResolvedType};
use crate::config::Contract;
use crate::schema::{Column, Fill, Hints, Policy, RowIdentity, Step, TableSchema, steps_between};

/// A followed table before.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub schema: &'a TableSchema,
    pub attributes: Option<&'a Attributes>,
    pub contract: &'a Contract,
    pub ignored: &'a BTreeSet<String>,
}

/// What became of it.
#[derive(Debug)]
pub struct Found {
    pub after: TableSchema,
    /// `None` where not every number is known.
    pub attributes: Option<Attributes>,
    /// None when nothing changed that concerns what is captured.
    pub steps: Vec<Step>,
    /// What was taken for granted because nothing tells the statement, in words.
    pub assumed: Option<String>,
}

/// What identifies a row, as far as it is told.
enum KeyFact {
    /// These columns; none: nothing does.
    Columns(Vec<String>),
    /// The whole row; beside it a primary key, where that is known.
    Full(Option<Vec<String>>),
}

/// What is told besides the columns.
struct Facts<'a> {
    key: KeyFact,
    /// What old rows hold in a column that is new.
    fills: &'a dyn Fn(&Attribute, &Column) -> Result<Fill, String>,
    /// The statement computed the values of this column.
    computed: &'a dyn Fn(&str) -> bool,
    /// The statement's text is known, and with it whether it has USING.
    told: bool,
}

/// By a Relation message, with the catalog of now where it agrees. `ordered`: the relation is the table itself, no
/// partition. `told`: an event trigger tells every statement.
pub fn by_relation(
    known: Known<'_>,
    relation: &Relation<'_>,
    types: &[ResolvedType],
    now: Option<&Description>,
    (ordered, told): (bool, bool),
) -> Result<Found, String> {
    let mut agreed = false;
    let mut attributes = match known.attributes {
        Some(before) if numbering::is_same(&relation.columns, before, ordered) => {
            if let Some(anew) = now.and_then(|now| numbering::made_anew(before, &now.attributes)).filter(|_| !told) {
                return Err(format!(
                    "column `{}` was dropped and another of the same name and type was added, and the log does not tell \
                     between which rows",
                    anew.name
                ));
            }
            agreed = now.is_some();
            let mut same = before.clone();
            for attribute in same.columns.iter_mut().filter(|attribute| attribute.sent) {
                let place = relation.columns.iter().position(|column| column.name == attribute.name);
                // A type may be renamed.
                if let Some(found) = place.and_then(|place| types.get(place)) {
                    attribute.found.name.clone_from(&found.name);
                }
            }
            same
        }
        before => {
            let numbers = numbering::number(&relation.columns, before, now, ordered)?;
            agreed |= numbers.agreed;
            announced(relation, types, &numbers, before, now)
        }
    };
    let identity = char::from(relation.replica_identity).to_string();
    let flagged = || relation.columns.iter().filter(|column| column.key).map(|column| column.name.to_owned());
    let key = match identity.as_str() {
        "f" => {
            let full = now.filter(|now| agreed && now.attributes.identity == "f");
            KeyFact::Full(full.map(|now| now.attributes.key.clone()))
        }
        "n" => KeyFact::Columns(Vec::new()),
        _ => KeyFact::Columns(flagged().collect()),
    };
    match &key {
        KeyFact::Columns(columns) => attributes.key.clone_from(columns),
        KeyFact::Full(Some(columns)) => attributes.key.clone_from(columns),
        KeyFact::Full(None) => {}
    }
    attributes.identity = identity;
    let files = known.attributes.map(|before| &before.files);
    let fills = |attribute: &Attribute, column: &Column| match now {
        Some(now) if attribute.number != 0 => fill(now, attribute, column, Rewrites::Files(files)),
        _ => Ok(Fill::Unknown("the catalog has gone on since, and does not tell any more".into())),
    };
    compare(known, attributes, &Facts { key, fills: &fills, computed: &|_| false, told: false })
}

/// By a description that is exact at its place: what a statement's message says, or the catalog once the log was read up to
/// there without a row in between.
pub fn by_description(known: Known<'_>, there: &Description, statement: Option<&Statement>) -> Result<Found, String> {
    if let (Some(before), None) = (known.attributes, statement)
        && let Some(anew) = numbering::made_anew(before, &there.attributes)
    {
        return Err(format!(
            "column `{}` was dropped and another of the same name and type was added, and the log does not tell when",
            anew.name
        ));
    }
    let key = match there.attributes.identity.as_str() {
        "f" => KeyFact::Full(Some(there.attributes.key.clone())),
        "n" => KeyFact::Columns(Vec::new()),
        _ => KeyFact::Columns(there.attributes.key.clone()),
    };
    let files = known.attributes.map(|before| &before.files);
    let rewrites = match statement {
        Some(statement) => {
            Rewrites::Told { rewritten: statement.rewrote(there), defaults: statement.may_declare_defaults() }
        }
        None => Rewrites::Files(files),
    };
    let rewrote = statement.filter(|statement| statement.rewrote(there));
    let facts = Facts {
        key,
        fills: &|attribute, column| fill(there, attribute, column, rewrites),
        computed: &|column| rewrote.is_some_and(|statement| statement.used_expression(column)),
        told: statement.is_some_and(Statement::is_plain),
    };
    compare(known, there.attributes.clone(), &facts)
}

/// The columns of a message, and those that it does not have because they are not sent.
fn announced(
    relation: &Relation<'_>,
    types: &[ResolvedType],
    numbers: &numbering::Numbers,
    before: Option<&Attributes>,
    now: Option<&Description>,
) -> Attributes {
    let now = now.map(|now| &now.attributes);
    let mut columns = Vec::with_capacity(relation.columns.len());
    for ((column, found), &number) in relation.columns.iter().zip(types).zip(&numbers.numbers) {
        let described = now.and_then(|now| now.numbered(number));
        let mut attribute = Attribute {
            number,
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            found: found.clone(),
            generated: described.is_some_and(|now| now.generated),
            sent: true,
            left_out: false,
        };
        // The log does not tell the declared dimensions of arrays.
        if let Some(described) = described.filter(|described| described.has_type_of(&attribute)) {
            attribute.found = described.found.clone();
        }
        columns.push(attribute);
    }
    let width = numbers.numbers.iter().copied().chain(before.map(|before| before.width)).max().unwrap_or_default();
    let silent = match (now.filter(|_| numbers.agreed), before) {
        (Some(now), _) => Some(now),
        (None, before) => before.filter(|_| !numbers.numbers.contains(&0)),
    };
    let unsent = silent.into_iter().flat_map(|silent| &silent.columns).filter(|column| {
        let taken = numbers.numbers.contains(&column.number);
        !taken && column.number <= width && (numbers.agreed || !column.sent)
    });
    columns.extend(unsent.map(|column| Attribute { sent: false, ..column.clone() }));
    columns.sort_by_key(|column| column.number);
    Attributes {
        oid: now.or(before).map_or(relation.id, |table| table.oid),
        width,
        identity: String::new(),
        key: before.map(|before| before.key.clone()).unwrap_or_default(),
        files: now.filter(|_| numbers.agreed).or(before).map(|table| table.files.clone()).unwrap_or_default(),
        columns,
    }
}

fn compare(known: Known<'_>, mut new: Attributes, facts: &Facts<'_>) -> Result<Found, String> {
    let before = known.schema;
    // Old names to new ones; those of columns that are gone to what no column is called.
    let mut renamed: Vec<(String, String)> = Vec::new();
    let mut changed: HashMap<String, String> = HashMap::new();
    let mut cast: Vec<String> = Vec::new();
    let mut filled: HashMap<String, Fill> = HashMap::new();
    let mut columns: Vec<Column> = Vec::new();
    let mut matched: Vec<usize> = Vec::new();
    for column in &before.columns {
        let old = known.attributes.and_then(|attributes| attributes.named(&column.name));
        let place = match old.filter(|old| old.number != 0 && new.numbers_known()) {
            Some(old) => new.columns.iter().position(|new| new.number == old.number),
            None => new.columns.iter().position(|new| new.name == column.name),
        };
        let Some(place) = place else {
            renamed.push((column.name.clone(), format!("{}\u{0}gone", column.name)));
            continue;
        };
        let now = &new.columns[place];
        if !now.sent {
            return Err(format!(
                "column `{}` is not in the log any more (was it taken out of the publication's list of columns?)",
                now.name
            ));
        }
        matched.push(place);
        if now.name != column.name {
            renamed.push((column.name.clone(), now.name.clone()));
        }
        let same = match old {
            Some(old) => old.has_type_of(now),
            None => column.source_type == now.found.name,
        };
        if same {
            columns.push(Column { name: now.name.clone(), source_type: now.found.name.clone(), ..column.clone() });
        } else {
            let settled = settled(now, column.policy, known.contract)?;
            match became(column, old, &settled, now) {
                Some(how) => {
                    changed.insert(now.name.clone(), how);
                }
                None => cast.push(format!("`{}` from {} to {}", now.name, column.source_type, now.found.name)),
            }
            columns.push(settled);
        }
        if (facts.computed)(&now.name) {
            let how = "its values were computed anew by USING, and the log does not tell them";
            changed.insert(now.name.clone(), how.into());
        }
    }
    for place in 0..new.columns.len() {
        if matched.contains(&place) || !new.columns[place].sent {
            continue;
        }
        let attribute = &mut new.columns[place];
        if let Some(column) = arrived(known, attribute)? {
            let before = known.attributes.and_then(|attributes| attributes.numbered(attribute.number));
            let fill = match before {
                Some(_) => Fill::Unknown("it was there before, but not captured".into()),
                None => (facts.fills)(attribute, &column)?,
            };
            filled.insert(column.name.clone(), fill);
            columns.push(column);
        }
    }
    let mut after = TableSchema {
        name: before.name.clone(),
        columns,
        key: Vec::new(),
        partition_by: Vec::new(),
        identity: before.identity,
    };
    let new_name = |name: &String| {
        renamed.iter().find(|(from, _)| from == name).map_or_else(|| name.clone(), |(_, to)| to.clone())
    };
    let names = |indexes: &[usize]| indexes.iter().map(|&index| before.columns[index].name.clone()).collect::<Vec<_>>();
    after.partition_by =
        names(&before.partition_by).iter().filter_map(|name| after.column_index(&new_name(name))).collect();
    let kept_key: Vec<String> = names(&before.key).iter().map(new_name).collect();
    let old_key = known.attributes.map(|old| old.key.iter().map(new_name).collect::<Vec<_>>());
    let (wanted, identity) = identify(known, &facts.key, &kept_key, old_key.as_deref())?;
    for name in wanted {
        match after.column_index(&name) {
            Some(index) => after.key.push(index),
            // Dropped: the step tells.
            None if name.contains('\u{0}') => {}
            None => {
                return Err(format!(
                    "column `{name}` identifies its rows now, and is not captured (`exclude` in its contract, or \
                    ignored)"
                ));
            }
        }
    }
    after.identity = identity;
    for index in 0..after.columns.len() {
        after.columns[index].nullable = !after.is_key(index);
    }
    if let Some((one, other)) = after.same_name() {
        return Err(format!("columns `{one}` and `{other}` differ in capitals only, which the lake can't tell apart"));
    }
    let hints = Hints {
        renamed: &renamed,
        fill: &|column| {
            let nothing = || Fill::Unknown("nothing describes it".into());
            filled.get(&column.name).cloned().unwrap_or_else(nothing)
        },
        rewritten: &|column| changed.get(&column.name).cloned(),
    };
    let steps = steps_between(before, &after, &hints);
    let assumed = if facts.told { None } else { assumptions(known, &steps, &cast) };
    let attributes = Some(new).filter(Attributes::numbers_known);
    Ok(Found { after, attributes, steps, assumed })
}

/// The column of the lake for one that was not there, or not captured, before; `None` where it stays left out.
fn arrived(known: Known<'_>, attribute: &mut Attribute) -> Result<Option<Column>, String> {
    let left_out = |name: &String| known.contract.exclude.contains(name) || known.ignored.contains(name);
    let before = known.attributes.and_then(|attributes| attributes.numbered(attribute.number));
    attribute.left_out = before.is_some_and(|before| before.left_out);
    if left_out(&attribute.name) || attribute.left_out {
        return Ok(None);
    }
    if let Some(before) = before.filter(|before| before.name != attribute.name) {
        if known.contract.exclude.contains(&before.name) {
            return Err(format!(
                "column `{}`, which its contract excludes, is called `{}` now: name it so in `exclude`, or it would reach the \
                 lake",
                before.name, attribute.name
            ));
        }
        if known.ignored.contains(&before.name) {
            attribute.left_out = true;
            return Ok(None);
        }
    }
    settled(attribute, known.contract.value_policy_of(&attribute.name), known.contract).map(Some)
}

/// As the lake holds it when nothing was there before.
fn settled(attribute: &Attribute, policy: Policy, contract: &Contract) -> Result<Column, String> {
    let mut column = Column {
        name: attribute.name.clone(),
        source_type: attribute.found.name.clone(),
        lake_type: types::natural(&attribute.found).lake_type,
        nullable: true,
        policy,
    };
    types::settle(&mut column, &attribute.found, contract.types.get(&attribute.name))
        .map_err(|finding| format!("its contract: {finding}"))?;
    Ok(column)
}

/// Why values may not be what a cast of the lake's makes of them; `None` when they are.
fn became(column: &Column, old: Option<&Attribute>, settled: &Column, now: &Attribute) -> Option<String> {
    let as_text = column.lake_type == crate::schema::LakeType::String && settled.lake_type == column.lake_type;
    let carried = old.is_some_and(|old| types::carries(&old.found, &now.found, as_text));
    (!carried).then(|| {
        format!(
            "{} becomes {} ({} to {} in the lake), and the log does not tell what became of its values",
            column.source_type, settled.source_type, column.lake_type, settled.lake_type
        )
    })
}

/// The key from here on, by names after, and what tells rows apart.
fn identify(
    known: Known<'_>,
    key: &KeyFact,
    kept: &[String],
    old: Option<&[String]>,
) -> Result<(Vec<String>, RowIdentity), String> {
    let same =
        |one: &[String], other: &[String]| one.len() == other.len() && one.iter().all(|name| other.contains(name));
    let stays = || Ok((kept.to_vec(), known.schema.identity));
    // Where the source has no key, the contract may have one.
    let effective = |key: &[String]| if key.is_empty() { known.contract.key.clone() } else { key.to_vec() };
    match (known.schema.identity, key) {
        (RowIdentity::AppendOnly, _) | (RowIdentity::WholeRow, KeyFact::Full(_)) => stays(),
        (RowIdentity::WholeRow, KeyFact::Columns(columns)) if columns.is_empty() => {
            Err("its replica identity is not FULL any more, and it has no key: the log does not tell which row a change is \
                 about"
                .into())
        }
        (RowIdentity::WholeRow, KeyFact::Columns(columns)) => Ok((columns.clone(), RowIdentity::Key)),
        (RowIdentity::Key, KeyFact::Columns(columns)) if same(columns, kept) => stays(),
        (RowIdentity::Key, KeyFact::Columns(columns)) => Ok((columns.clone(), RowIdentity::Key)),
        (RowIdentity::Key, KeyFact::Full(Some(columns))) => {
            let now = effective(columns);
            match old {
                Some(old) if !same(&effective(old), &now) && !same(kept, &now) => {
                    let identity = if now.is_empty() { RowIdentity::WholeRow } else { RowIdentity::Key };
                    Ok((now, identity))
                }
                _ => stays(),
            }
        }
        (RowIdentity::Key, KeyFact::Full(None)) => stays(),
    }
}

/// In words, for the record of the change.
fn assumptions(known: Known<'_>, steps: &[Step], cast: &[String]) -> Option<String> {
    let mut words = Vec::new();
    if !cast.is_empty() {
        words.push(format!("values are taken as cast: {}", cast.join(", ")));
    }
    let dropped = steps.iter().any(|step| matches!(step, Step::Drop { .. }));
    let added = steps.iter().any(|step| matches!(step, Step::Add { .. }));
    if dropped && added && known.attributes.is_none() {
        words.push("a renamed column would look dropped and added".into());
    }
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{LakeType, TableName};
    use crate::source::postgres::types::oid;

    fn attribute(number: i16, name: &str) -> Attribute {
        let found = ResolvedType {
            name: "integer".into(),
            base_oid: oid::INT4,
            base_typmod: -1,
            delimiter: ',',
            ..ResolvedType::default()
        };
        let name = name.to_owned();
        Attribute {
            number,
            name,
            type_oid: oid::INT4,
            typmod: -1,
            found,
            generated: false,
            sent: true,
            left_out: false,
        }
    }

    /// `id@1 a@2`
    fn description(columns: &str, identity: &str, key: &[&str]) -> Description {
        let columns: Vec<Attribute> = columns
            .split_whitespace()
            .map(|word| {
                let (name, number) = word.split_once('@').expect("name@number");
                attribute(number.parse().expect("a number"), name)
            })
            .collect();
        Description {
            name: TableName::new("shop", "t"),
            attributes: Attributes {
                oid: 7,
                width: columns.iter().map(|column| column.number).max().unwrap_or_default(),
                identity: identity.into(),
                key: key.iter().map(|&name| name.to_owned()).collect(),
                files: [(7, 70)].into(),
                columns,
            },
            missing: Default::default(),
            has_default: Default::default(),
            listed: false,
            published: true,
            partitioned: false,
            leaves: Vec::new(),
        }
    }

    fn schema(columns: &[&str], key: &[usize], identity: RowIdentity) -> TableSchema {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            source_type: "integer".into(),
            lake_type: LakeType::Integer,
            nullable: true,
            policy: Policy::Null,
        };
        TableSchema {
            name: TableName::new("shop", "t"),
            columns: columns.iter().map(column).collect(),
            key: key.to_vec(),
            partition_by: vec![],
            identity,
        }
    }

    fn found(
        schema: &TableSchema,
        before: &Description,
        after: &Description,
        contract: &Contract,
        ignored: &[&str],
    ) -> Result<(Vec<String>, Found), String> {
        let ignored = ignored.iter().map(|&name| name.to_owned()).collect();
        let known = Known { schema, attributes: Some(&before.attributes), contract, ignored: &ignored };
        let found = by_description(known, after, None)?;
        Ok((found.steps.iter().map(ToString::to_string).collect(), found))
    }

    /// D-7, P-20
    #[test]
    fn the_key_changes_where_rows_are_identified_otherwise() {
        let keyed = schema(&["id", "a"], &[0], RowIdentity::Key);
        let steps = |schema: &TableSchema, before: (&str, &[&str]), after: (&str, &[&str]), contract: &Contract| {
            let [before, after] = [before, after].map(|(identity, key)| description("id@1 a@2", identity, key));
            found(schema, &before, &after, contract, &[]).map(|(steps, found)| (steps, found.after.identity))
        };
        let none = Contract::default();
        let unchanged = Ok((vec![], RowIdentity::Key));
        let rekeyed = |to: &str, identity| Ok((vec![format!("the key was (id) and is ({to})")], identity));
        assert_eq!(steps(&keyed, ("d", &["id"]), ("i", &["a"]), &none), rekeyed("a", RowIdentity::Key));
        assert_eq!(steps(&keyed, ("d", &["id"]), ("f", &["id"]), &none), unchanged);
        // The primary key beside the whole row is what tells rows apart.
        assert_eq!(steps(&keyed, ("f", &["id"]), ("f", &["a"]), &none), rekeyed("a", RowIdentity::Key));
        assert_eq!(steps(&keyed, ("f", &["id"]), ("f", &[]), &none), rekeyed("", RowIdentity::WholeRow));
        assert_eq!(steps(&keyed, ("d", &["id"]), ("n", &[]), &none), rekeyed("", RowIdentity::Key));
        // A contract's key is the lake's, with or without one at the source.
        let contract = Contract { key: vec!["id".into()], ..Contract::default() };
        assert_eq!(steps(&keyed, ("f", &[]), ("f", &[]), &contract), unchanged);
        // The whole row still tells rows apart.
        let whole = schema(&["id", "a"], &[], RowIdentity::WholeRow);
        assert_eq!(steps(&whole, ("f", &[]), ("f", &["id"]), &none), Ok((vec![], RowIdentity::WholeRow)));
        assert!(steps(&whole, ("f", &[]), ("n", &[]), &none).is_err());
        assert_eq!(
            steps(&whole, ("f", &[]), ("d", &["id"]), &none),
            Ok((vec!["the key was () and is (id)".to_owned()], RowIdentity::Key))
        );
    }

    #[test]
    fn what_was_left_out_stays_out_or_stops_the_table() {
        let lake = schema(&["id"], &[0], RowIdentity::Key);
        let before = description("id@1 a@2", "d", &["id"]);
        let none = Contract::default();
        // Ignored by policy, also under another name.
        let (steps, after) =
            found(&lake, &before, &description("id@1 b@2", "d", &["id"]), &none, &["a"]).expect("no change");
        assert!(steps.is_empty());
        let kept = Description { attributes: after.attributes.expect("known"), ..before.clone() };
        assert!(kept.attributes.columns[1].left_out);
        let (steps, _) = found(&lake, &kept, &description("id@1 c@2", "d", &["id"]), &none, &["a"]).expect("no change");
        assert!(steps.is_empty());
        // Excluded by contract: under another name it would reach the lake with the next load.
        let contract = Contract { exclude: vec!["a".into()], ..Contract::default() };
        let renamed = found(&lake, &before, &description("id@1 b@2", "d", &["id"]), &contract, &[]);
        assert!(renamed.expect_err("stops").contains("is called `b` now"));
        // Not excluded any more: what rows held meanwhile is not known.
        let (steps, _) = found(&lake, &before, &before, &none, &[]).expect("told");
        assert_eq!(
            steps,
            ["column `a` (integer) is new, and what old rows hold is not known: it was there before, but not captured"]
        );
        // A key that is not captured can't be followed.
        let rekeyed = found(&lake, &before, &description("id@1 a@2", "i", &["a"]), &contract, &[]);
        assert!(rekeyed.expect_err("stops").contains("column `a` identifies its rows now"));
    }

    #[test]
    fn what_the_lake_could_not_hold_or_the_log_does_not_send_stops_the_table() {
        let lake = schema(&["id", "a"], &[0], RowIdentity::Key);
        let before = description("id@1 a@2", "d", &["id"]);
        let none = Contract::default();
        let capitals = found(&lake, &before, &description("id@1 a@2 A@3", "d", &["id"]), &none, &[]);
        assert!(capitals.expect_err("stops").contains("differ in capitals only"));
        let mut unsent = before.clone();
        unsent.attributes.columns[1].sent = false;
        assert!(found(&lake, &before, &unsent, &none, &[]).expect_err("stops").contains("is not in the log any more"));
        let anew = found(&lake, &before, &description("id@1 a@3", "d", &["id"]), &none, &[]);
        assert!(anew.expect_err("stops").contains("was dropped and another of the same name and type"));
    }
}
