//! Which of the catalog's columns are those of a Relation message.
//!
//! The message has names and types in the order of the numbers, without the numbers. The catalog of now has them, but may be
//! ahead of the log. What is certain: columns that are there now and were there before were there in between; a number is
//! never given twice; new columns come behind all old ones. Where more than one reading is left, none is taken.

use super::attributes::{Attribute, Attributes, Description};
use super::pgoutput::RelationColumn;

/// More ways to read a message than this are as good as none.
const READINGS_MAX: usize = 64;

/// The numbers of a message's columns; 0 where one is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub numbers: Vec<i16>,
    /// The catalog describes just these columns.
    pub agreed: bool,
}

/// Whether the message has the columns that were known before. In an order of its own if it is a partition's.
pub fn is_same(columns: &[RelationColumn<'_>], known: &Attributes, ordered: bool) -> bool {
    let same = |column: &RelationColumn<'_>, known: &Attribute| column.name == known.name && has_type(column, known);
    columns.len() == known.sent().count()
        && if ordered {
            columns.iter().zip(known.sent()).all(|(column, known)| same(column, known))
        } else {
            columns.iter().all(|column| known.sent().any(|known| same(column, known)))
        }
}

fn has_type(column: &RelationColumn<'_>, known: &Attribute) -> bool {
    (column.type_oid, column.typmod) == (known.type_oid, known.typmod)
}

/// A column that is now another one of the same name and type: dropped, and added again.
pub fn made_anew<'a>(known: &'a Attributes, now: &Attributes) -> Option<&'a Attribute> {
    known.sent().find(|column| {
        now.numbered(column.number).is_none()
            && now.named(&column.name).is_some_and(|now| now.number > known.width && now.has_type_of(column))
    })
}

/// See the module text. The error says in words what can't be told.
pub fn number(
    columns: &[RelationColumn<'_>],
    known: Option<&Attributes>,
    now: Option<&Description>,
    ordered: bool,
) -> Result<Numbers, String> {
    let now = now.map(|now| &now.attributes);
    if let Some(numbers) = now.and_then(|now| agreed(columns, known, now, ordered)) {
        return Ok(Numbers { numbers, agreed: true });
    }
    let numbers = match (known, now) {
        // By their names only, and what old rows hold in new ones stays open.
        (None, _) => vec![0; columns.len()],
        (Some(_), None) => {
            return Err("it is gone from the catalog, which would tell what became of its columns".into());
        }
        (Some(known), Some(now)) if ordered => derived(columns, known, now)?,
        (Some(known), Some(now)) => by_name(columns, known, now)?,
    };
    Ok(Numbers { numbers, agreed: false })
}

/// The catalog's numbers where it describes these columns, and none besides that could have been among them.
fn agreed(
    columns: &[RelationColumn<'_>],
    known: Option<&Attributes>,
    now: &Attributes,
    ordered: bool,
) -> Option<Vec<i16>> {
    let numbers: Vec<i16> = columns
        .iter()
        .map(|column| Some(now.named(column.name).filter(|now| has_type(column, now))?.number))
        .collect::<Option<_>>()?;
    if ordered && !numbers.is_sorted() {
        return None;
    }
    let explained = |column: &Attribute| {
        let Some(known) = known else { return true };
        column.generated
            || column.number > known.width
            || known.numbered(column.number).is_some_and(|known| !known.sent)
    };
    now.columns.iter().all(|column| numbers.contains(&column.number) || explained(column)).then_some(numbers)
}

/// The catalog went on since, or something else is between.
fn derived(columns: &[RelationColumn<'_>], known: &Attributes, now: &Attributes) -> Result<Vec<i16>, String> {
    let old = known.sent().map(|column| (column.number, Some(column)));
    let new = (known.width + 1..=now.width).map(|number| (number, None));
    let given: Vec<(i16, Option<&Attribute>)> = old.chain(new).collect();
    let mut readings = Vec::new();
    read(columns, &given, now, &mut Vec::new(), &mut readings);
    let several = "the log does not tell which of its columns were renamed and which dropped, and the catalog has gone on \
                   since";
    let Some((first, others)) = readings.split_first() else {
        return Err("the log has columns that the catalog does not explain (was the publication's list of columns \
                    changed?)"
            .into());
    };
    if readings.len() == READINGS_MAX {
        return Err(several.into());
    }
    let mut numbers = first.clone();
    for other in others {
        for (number, other) in numbers.iter_mut().zip(other) {
            if *number != *other {
                if *other > known.width && (*number == 0 || *number > known.width) {
                    *number = 0;
                } else {
                    return Err(several.into());
                }
            }
        }
    }
    Ok(numbers)
}

/// Gathers the ways in which the message's columns are some of the `given` ones, in order.
fn read(
    columns: &[RelationColumn<'_>],
    given: &[(i16, Option<&Attribute>)],
    now: &Attributes,
    taken: &mut Vec<i16>,
    readings: &mut Vec<Vec<i16>>,
) {
    if readings.len() == READINGS_MAX {
        return;
    }
    let Some(((number, known), rest)) = given.split_first() else {
        if taken.len() == columns.len() {
            readings.push(taken.clone());
        }
        return;
    };
    let there = now.numbered(*number);
    if let Some(column) = columns.get(taken.len()) {
        // A new one that is gone again could have been any.
        let mut looks = [*known, there].into_iter().flatten().peekable();
        if looks.peek().is_none() || looks.any(|look| column.name == look.name || has_type(column, look)) {
            taken.push(*number);
            read(columns, rest, now, taken, readings);
            taken.pop();
        }
    }
    let unsent = there.is_some_and(|now| now.generated);
    // What was there and is there was there in between; new ones came in their order.
    let later = known.is_none() && taken.len() == columns.len();
    if there.is_none() || unsent || later {
        read(columns, rest, now, taken, readings);
    }
}

/// For a partition, whose columns have an order of their own: each must have the name and type of one column only, of before
/// or of now, and what was there all the time must be among them.
fn by_name(columns: &[RelationColumn<'_>], known: &Attributes, now: &Attributes) -> Result<Vec<i16>, String> {
    let uncertain =
        || "the log does not tell what became of its partitions' columns, and the catalog has gone on since".to_owned();
    let mut numbers: Vec<i16> = Vec::with_capacity(columns.len());
    for column in columns {
        let candidates = known.sent().chain(&now.columns);
        let mut candidates = candidates.filter(|known| known.name == column.name && has_type(column, known));
        let number = candidates.next().map(|candidate| candidate.number).ok_or_else(uncertain)?;
        if numbers.contains(&number) || candidates.any(|candidate| candidate.number != number) {
            return Err(uncertain());
        }
        numbers.push(number);
    }
    let stayed = |column: &Attribute| now.numbered(column.number).is_some();
    if known.sent().any(|column| stayed(column) && !numbers.contains(&column.number)) {
        return Err(uncertain());
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;
    use crate::source::postgres::types::ResolvedType;

    /// `id@1 a@2`, all of one type, or `a:7@2` of another.
    fn attributes(text: &str, width: i16) -> Attributes {
        let columns = text.split_whitespace().map(|word| {
            let (name, number) = word.split_once('@').expect("name@number");
            let (name, type_oid) = name.split_once(':').unwrap_or((name, "23"));
            Attribute {
                number: number.parse().expect("a number"),
                name: name.into(),
                type_oid: type_oid.parse().expect("an oid"),
                typmod: -1,
                found: ResolvedType::default(),
                generated: false,
                sent: true,
                left_out: false,
            }
        });
        Attributes { width, columns: columns.collect(), ..Attributes::default() }
    }

    fn described(attributes: Attributes) -> Description {
        Description {
            name: TableName::new("shop", "t"),
            attributes,
            missing: Default::default(),
            has_default: Default::default(),
            listed: false,
            published: true,
            partitioned: false,
            leaves: Vec::new(),
        }
    }

    fn numbered(message: &str, known: &str, now: &str, width: i16, ordered: bool) -> Option<Vec<i16>> {
        let columns: Vec<RelationColumn<'_>> = message
            .split_whitespace()
            .map(|word| {
                let (name, type_oid) = word.split_once(':').unwrap_or((word, "23"));
                RelationColumn { key: false, name, type_oid: type_oid.parse().expect("an oid"), typmod: -1 }
            })
            .collect();
        let known = attributes(known, known.split('@').next_back().and_then(|n| n.parse().ok()).expect("a number"));
        let now = described(attributes(now, width));
        number(&columns, Some(&known), Some(&now), ordered).ok().map(|numbers| numbers.numbers)
    }

    #[test]
    fn the_catalog_of_now_gives_numbers_where_it_agrees() {
        for (message, known, now, width, numbers) in [
            // Renamed; dropped and added; retyped; exchanged.
            ("id b", "id@1 a@2", "id@1 b@2", 2, vec![1, 2]),
            ("id b", "id@1 a@2", "id@1 b@3", 3, vec![1, 3]),
            ("id a:20", "id@1 a@2", "id@1 a:20@2", 2, vec![1, 2]),
            ("id b a", "id@1 a@2 b@3", "id@1 b@2 a@3", 3, vec![1, 2, 3]),
            // A column came since.
            ("id b", "id@1 a@2", "id@1 b@2 c@3", 3, vec![1, 2]),
        ] {
            assert_eq!(numbered(message, known, now, width, true), Some(numbers), "{message}");
        }
    }

    /// The reader was down while several statements ran.
    #[test]
    fn a_catalog_that_went_on_gives_numbers_where_one_reading_is_left() {
        for (message, known, now, width, numbers) in [
            // Renamed again since; retyped again since.
            ("id b", "id@1 a@2", "id@1 c@2", 2, Some(vec![1, 2])),
            ("id a:20", "id@1 a@2", "id@1 a:1700@2", 2, Some(vec![1, 2])),
            // Dropped since.
            ("id a x", "id@1 a@2", "id@1 x@3", 3, Some(vec![1, 2, 3])),
            // Added and dropped again.
            ("id t", "id@1", "id@1", 2, Some(vec![1, 2])),
            // Of three that came the second is gone; the last has another type, or another name.
            ("id a b c", "id@1", "id@1 a@2 c:25@4", 4, Some(vec![1, 2, 3, 4])),
            ("id a b c:25", "id@1", "id@1 a@2 d:25@4", 4, Some(vec![1, 2, 3, 4])),
            // Two came, one of them is gone: which one the message has can't be told.
            ("id t", "id@1", "id@1 u@3", 3, Some(vec![1, 0])),
            // Renamed or new: the column that was there is gone since. With one behind it that is still there, it is old.
            ("id b", "id@1 a@2", "id@1", 3, None),
            ("id b c", "id@1 a@2 c@3", "id@1 c@3", 3, Some(vec![1, 2, 3])),
            ("id b c", "id@1 a@2 c@3", "id@1 c@3", 4, None),
            ("id a:99 c", "id@1 a@2 c@3", "id@1 c@3", 3, Some(vec![1, 2, 3])),
            // Of two columns one was dropped before, the other after; both could be the one that is left.
            ("id a", "id@1 a@2 a@3", "id@1", 3, None),
            ("id z:99", "id@1 a@2", "id@1 b@2", 2, None),
        ] {
            assert_eq!(numbered(message, known, now, width, true), numbers, "{message}");
        }
    }

    #[test]
    fn a_partition_has_an_order_of_its_own() {
        assert_eq!(numbered("b id", "id@1 a@2", "id@1 b@2", 2, false), Some(vec![2, 1]));
        assert_eq!(numbered("b id", "id@1 a@2", "id@1 c@2", 2, false), None);
        // Renamed since, dropped since, and another one that took its name since.
        assert_eq!(numbered("x a id", "id@1 a@2", "id@1 b@2 x@3", 3, false), Some(vec![3, 2, 1]));
        assert_eq!(numbered("x a id", "id@1 a@2", "id@1 x@3", 3, false), Some(vec![3, 2, 1]));
        assert_eq!(numbered("a id b", "id@1 a@2 b@3", "id@1 c@3 a@4", 4, false), None);
        let known = attributes("id@1 a@2", 2);
        let message =
            |names: [&'static str; 2]| names.map(|name| RelationColumn { key: false, name, type_oid: 23, typmod: -1 });
        assert!(is_same(&message(["a", "id"]), &known, false) && !is_same(&message(["a", "id"]), &known, true));
    }

    #[test]
    fn a_column_made_anew_is_seen_by_its_number() {
        let known = attributes("id@1 a@2", 2);
        assert!(made_anew(&known, &attributes("id@1 a@3", 3)).is_some());
        assert!(made_anew(&known, &attributes("id@1 b@2 a@3", 3)).is_none());
        assert!(made_anew(&known, &attributes("id@1 a:25@3", 3)).is_none());
    }
}
