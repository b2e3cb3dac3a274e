//! What a PodDisruptionBudget still allows, as a function. The runner asks it before it takes a well pod away by its own hand:
//! for an eviction, as a drain of a node would, and for a roll-out too.

use anyhow::{Context, Result};

use crate::manifest::{Amount, BudgetSpec};

/// How many well pods may be taken away now, if `wanted` are wanted and `well` of them are ready and stay.
///
/// # Errors
/// When an amount is neither a number nor a percentage.
pub fn allowed(budget: &BudgetSpec, wanted: u32, well: u32) -> Result<u32> {
    let needed = match (&budget.min_available, &budget.max_unavailable) {
        (Some(least), _) => of(least, wanted)?,
        (None, Some(most)) => wanted.saturating_sub(of(most, wanted)?),
        (None, None) => wanted,
    };
    Ok(well.saturating_sub(needed))
}

/// Parts of a pod count as a whole one, as Kubernetes has it for both amounts.
fn of(amount: &Amount, wanted: u32) -> Result<u32> {
    match amount {
        Amount::Number(number) => Ok(*number),
        Amount::Percent(text) => {
            let number = text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok());
            let percent = number.with_context(|| format!("`{text}` is neither a number nor a percentage"))?;
            Ok((wanted * percent).div_ceil(100))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(min: Option<Amount>, max: Option<Amount>) -> BudgetSpec {
        BudgetSpec {
            selector: crate::manifest::Selector::default(),
            min_available: min,
            max_unavailable: max,
        }
    }

    #[test]
    fn no_more_may_be_away_than_the_budget_says() {
        let one = budget(None, Some(Amount::Number(1)));
        assert_eq!(allowed(&one, 3, 3).unwrap(), 1);
        assert_eq!(allowed(&one, 3, 2).unwrap(), 0, "one is away already");
        assert_eq!(allowed(&one, 3, 1).unwrap(), 0);
    }

    #[test]
    fn so_many_must_be_well_as_the_budget_says() {
        let two = budget(Some(Amount::Number(2)), None);
        assert_eq!(allowed(&two, 3, 3).unwrap(), 1);
        assert_eq!(allowed(&two, 2, 2).unwrap(), 0);
        assert_eq!(allowed(&two, 5, 5).unwrap(), 3);
    }

    #[test]
    fn a_part_of_a_pod_is_a_pod() {
        let half = || Amount::Percent("50%".to_owned());
        assert_eq!(allowed(&budget(Some(half()), None), 3, 3).unwrap(), 1);
        assert_eq!(allowed(&budget(None, Some(half())), 3, 3).unwrap(), 2);
        let error = allowed(&budget(None, Some(Amount::Percent("half".to_owned()))), 3, 3).unwrap_err();
        assert_eq!(error.to_string(), "`half` is neither a number nor a percentage");
    }
}
