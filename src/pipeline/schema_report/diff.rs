//! How a table in the lake differs from its source, or from itself at another time, and why.

use serde::Serialize;

use super::history::{HistoryEntry, history};
use super::show::state_of;
use super::{At, Place, ReportError, question};
use crate::config::Config;
use crate::schema::{Column, HeldAction, Origin, Shape, TableSchema};

/// What `lakeward schema diff` tells.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    pub source: String,
    pub table: String,
    /// What is on the left and on the right.
    pub left: String,
    pub right: String,
    pub differences: Vec<Difference>,
    /// Between two moments: the changes that lie between.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<HistoryEntry>,
}

/// One column, or the key, that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `None` for what concerns the table as a whole.
    pub column: Option<String>,
    pub left: Option<String>,
    pub right: Option<String>,
    pub why: String,
}

/// The source's catalog of now on the left, the lake on the right.
pub async fn diff_source(config: &Config, table: &str) -> Result<DiffReport, ReportError> {
    let place = Place::find(config, table)?;
    let log = place.log().await?;
    let state = place.state(&log, None).await?;
    let entry = place.entry().await?;
    let name = place.name.to_string();
    let (standing, _) = state_of(entry.as_ref(), &name);
    let database = place.database()?;
    let schemas = database.discover().await?;
    let catalog = schemas.into_iter().find(|schema| schema.name == place.name);
    let excluded = config.contracts.get(&place.source.name, &name).map(|contract| contract.exclude.clone());
    let alike = |one: &str, other: &str| database.declares_alike(one, other);
    let differences = match catalog {
        Some(catalog) => between(&catalog, &state.shape, standing, &excluded.unwrap_or_default(), &alike),
        None => vec![Difference {
            column: None,
            left: None,
            right: Some("there".to_owned()),
            why: "the source has no such table any more, or it can't be captured; see `lakeward check`".to_owned(),
        }],
    };
    Ok(DiffReport {
        source: place.source.name.clone(),
        table: name,
        left: "source".to_owned(),
        right: format!("lake, version {}", state.version),
        differences,
        changes: Vec::new(),
    })
}

/// The lake at one moment on the left, at a later one (or now) on the right.
pub async fn diff_points(config: &Config, table: &str, from: &At, to: Option<&At>) -> Result<DiffReport, ReportError> {
    let place = Place::find(config, table)?;
    let log = place.log().await?;
    let left = place.state(&log, Some(from)).await?;
    let right = place.state(&log, to).await?;
    if left.version > right.version {
        return Err(question(format!(
            "the first moment (version {}) is after the second (version {})",
            left.version, right.version
        )));
    }
    let until = At::Version(right.version);
    let changes = history(config, table, Some(&until)).await?.changes;
    Ok(DiffReport {
        source: place.source.name.clone(),
        table: place.name.to_string(),
        left: format!("version {}", left.version),
        right: format!("version {}", right.version),
        differences: in_time(&left.shape.shown(), &right.shape.shown()),
        changes: changes.into_iter().filter(|change| change.version.is_some_and(|at| at > left.version)).collect(),
    })
}

fn described(column: &Column) -> String {
    format!("{} ({})", column.lake_type, column.source_type)
}

fn between(
    catalog: &TableSchema,
    shape: &Shape,
    standing: &str,
    excluded: &[String],
    alike: &dyn Fn(&str, &str) -> bool,
) -> Vec<Difference> {
    let unfollowed = match standing {
        "streaming" => "not followed yet: lakeward is on its way there, or does not run",
        "waiting" => "not followed: the table waits for a decision, see `lakeward schema show`",
        "stopped" => "not followed: the table has stopped, see `lakeward tables`",
        _ => "not followed: the table is not captured",
    };
    let held = |name: &str| {
        let concerns = |action: &HeldAction| action.column() == name;
        shape.held.iter().find(|held| held.actions.iter().any(concerns)).map(|held| held.id)
    };
    let or_held = |name: &str, why: &str| match held(name) {
        Some(change) => format!("held: waits for a decision about change {change}"),
        None => why.to_owned(),
    };
    let mut differences = Vec::new();
    let mut note = |column: &str, left: Option<String>, right: Option<String>, why: String| {
        differences.push(Difference { column: Some(column.to_owned()), left, right, why });
    };
    for column in &catalog.columns {
        let at_source = Some(described(column));
        let Some(index) = shape.index_of_source(&column.name) else {
            let ignored = shape.ignored.contains(&column.name);
            let why = if ignored { "ignored: the lake leaves it out by policy" } else { unfollowed };
            note(&column.name, at_source, None, why.to_owned());
            continue;
        };
        let in_lake = &shape.lake.columns[index];
        if in_lake.lake_type != column.lake_type || !alike(&in_lake.source_type, &column.source_type) {
            note(&column.name, at_source, Some(described(in_lake)), unfollowed.to_owned());
        } else if shape.hidden[index] {
            note(&column.name, at_source, None, or_held(&in_lake.name, "hidden"));
        } else if in_lake.name != column.name {
            let why = or_held(&in_lake.name, "kept: the lake leaves the column its old name by policy");
            note(&column.name, Some(column.name.clone()), Some(in_lake.name.clone()), why);
        }
    }
    for (index, column) in shape.lake.columns.iter().enumerate() {
        match &shape.origins[index] {
            Origin::Dropped => {
                let why = or_held(&column.name, "kept: the source dropped it, and the lake keeps it by policy");
                note(&column.name, None, Some(described(column)), why);
            }
            Origin::Source(name) if catalog.column_index(name).is_none() => {
                note(name, None, Some(described(column)), unfollowed.to_owned());
            }
            Origin::Source(_) => {}
        }
    }
    for name in excluded {
        note(name, Some("excluded".to_owned()), None, "excluded by the table's contract".to_owned());
    }
    let key = |schema: &TableSchema| -> Vec<String> {
        schema.key.iter().map(|&index| schema.columns[index].name.clone()).collect()
    };
    let (left, right) = (key(catalog), key(&shape.source_schema()));
    if left != right {
        differences.push(Difference {
            column: None,
            left: Some(format!("key ({})", left.join(", "))),
            right: Some(format!("key ({})", right.join(", "))),
            why: unfollowed.to_owned(),
        });
    }
    differences
}

/// What readers saw at one time and at another.
fn in_time(left: &TableSchema, right: &TableSchema) -> Vec<Difference> {
    let mut differences = Vec::new();
    let note = |column: &str, left: Option<&Column>, right: Option<&Column>, why: &str| Difference {
        column: Some(column.to_owned()),
        left: left.map(described),
        right: right.map(described),
        why: why.to_owned(),
    };
    for column in &left.columns {
        match right.column_index(&column.name).map(|index| &right.columns[index]) {
            None => differences.push(note(&column.name, Some(column), None, "gone, or renamed")),
            Some(now) if now.lake_type != column.lake_type => {
                differences.push(note(&column.name, Some(column), Some(now), "has another type"));
            }
            Some(now) if now.source_type != column.source_type => {
                differences.push(note(&column.name, Some(column), Some(now), "is declared otherwise at the source"));
            }
            Some(_) => {}
        }
    }
    for column in right.columns.iter().filter(|column| left.column_index(&column.name).is_none()) {
        differences.push(note(&column.name, None, Some(column), "new, or renamed"));
    }
    differences
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::schema::{ChangeRecord, HeldChange, LakeType, Policy, RowIdentity, TableName};

    fn schema(columns: &[(&str, LakeType)]) -> TableSchema {
        let column = |(name, lake_type): &(&str, LakeType)| Column {
            name: (*name).into(),
            source_type: lake_type.to_string(),
            lake_type: *lake_type,
            nullable: true,
            policy: Policy::Null,
        };
        TableSchema {
            name: TableName::new("shop", "goods"),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        }
    }

    #[test]
    fn every_reason_for_a_difference_is_told() {
        use LakeType::{Integer, Long};
        let lake =
            [("id", Integer), ("a", Integer), ("kept", Integer), ("old", Integer), ("late", Integer), ("h", Integer)];
        let mut shape = Shape::of(Arc::new(schema(&lake)));
        shape.origins[2] = Origin::Dropped;
        shape.origins[3] = Origin::Source("new".into());
        shape.hidden[5] = true;
        shape.ignored.insert("left".into());
        let record = ChangeRecord {
            id: Uuid::from_u128(7),
            table: "shop.goods".into(),
            place: "0-1-7".into(),
            at: None,
            statement: None,
            before: vec![],
            after: vec![],
            steps: vec![],
        };
        let actions = vec![HeldAction::Show { column: "h".into() }];
        shape.held.push(HeldChange { id: record.id, actions, record });
        let catalog =
            schema(&[("id", Integer), ("a", Long), ("new", Integer), ("left", Integer), ("h", Integer), ("x", Long)]);
        let alike = |one: &str, other: &str| one == other;
        let told: Vec<String> = between(&catalog, &shape, "streaming", &["secret".into()], &alike)
            .into_iter()
            .map(|found| {
                format!("{} {}", found.column.unwrap_or_default(), found.why.split(':').next().unwrap_or_default())
            })
            .collect();
        assert_eq!(
            told,
            [
                "a not followed yet",
                "new kept",
                "left ignored",
                "h held",
                "x not followed yet",
                "kept kept",
                "late not followed yet",
                "secret excluded by the table's contract"
            ]
        );
        assert!(
            between(&schema(&lake[..2]), &Shape::of(Arc::new(schema(&lake[..2]))), "streaming", &[], &alike).is_empty()
        );
    }
}
