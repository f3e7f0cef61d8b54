//! The known name that is nearest to one that is not known.

/// The similarity from which a name is taken for a misspelling of another: 1 is the same, and one letter that is wrong,
/// missing, superfluous or swapped in a word of five is 0.8.
const MIN_SIMILARITY: f64 = 0.6;

/// `message` of serde, with the nearest of the names it lists if it is about an unknown key or value that is like one.
pub(crate) fn with_nearest(message: &str) -> String {
    suggest(message).unwrap_or_else(|| message.to_owned())
}

fn suggest(message: &str) -> Option<String> {
    let rest = ["unknown field `", "unknown variant `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    let (unknown, expected) = rest.split_once("`, expected ")?;
    let (_, nearest) = expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|known| (strsim::normalized_damerau_levenshtein(unknown, known), known))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    let beginning = message.strip_suffix(&format!(", expected {expected}"))?;
    Some(format!("{beginning}; did you mean `{nearest}`? Expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_if_one_is_near() {
        for (message, expected) in [
            (
                "unknown field `lisen`, expected one of `iface`, `listen`, `listener`",
                "unknown field `lisen`; did you mean `listen`? Expected one of `iface`, `listen`, `listener`",
            ),
            (
                "unknown field `afxpd`, expected `afxdp` or `tcp`",
                "unknown field `afxpd`; did you mean `afxdp`? Expected `afxdp` or `tcp`",
            ),
            (
                "unknown variant `allways`, expected one of `never`, `auto`, `always`",
                "unknown variant `allways`; did you mean `always`? Expected one of `never`, `auto`, `always`",
            ),
        ] {
            assert_eq!(with_nearest(message), expected);
        }
    }

    #[test]
    fn what_is_like_nothing_known_is_told_as_before() {
        for message in [
            "unknown field `workers`, expected one of `iface`, `listen`",
            "unknown field `x`, there are no fields",
            "invalid type: integer `1`, expected a string",
            "unknown field ``, expected `a`",
        ] {
            assert_eq!(with_nearest(message), message);
        }
    }
}
