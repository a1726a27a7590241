/// Lines that two texts don't share, each marked `-` or `+`, with up to `context` shared lines around them.
///
/// Longest common subsequence after the shared head and tail have been taken off. Where what is left is very long, it
/// shows as removed and added whole: right, if not short.
pub(crate) fn diff(old: &str, new: &str, context: usize) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    if old_middle.is_empty() && new_middle.is_empty() {
        return String::new();
    }

    let mut lines: Vec<(char, &str)> = old[..head].iter().map(|line| (' ', *line)).collect();
    lines.extend(middle(old_middle, new_middle));
    lines.extend(old[old.len() - tail..].iter().map(|line| (' ', *line)));

    let near = |at: usize| {
        let window = &lines[at.saturating_sub(context)..(at + context + 1).min(lines.len())];
        window.iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = String::new();
    let mut skipped = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if near(at) {
            if skipped && !out.is_empty() {
                out.push_str("  ⋮\n");
            }
            skipped = false;
            out.push_str(&format!("{mark} {line}\n"));
        } else {
            skipped = true;
        }
    }
    out
}

/// Beyond this many comparisons the middle shows whole.
const COMPARISONS: usize = 4_000_000;

fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    if old.len().saturating_mul(new.len()) > COMPARISONS {
        return old.iter().map(|line| ('-', *line)).chain(new.iter().map(|line| ('+', *line))).collect();
    }
    // common[i][j]: how many lines old[i..] and new[j..] share in order.
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_differ_in_nothing() {
        assert_eq!(diff("a\nb\n", "a\nb", 3), "");
    }

    #[test]
    fn a_changed_line_shows_with_its_neighbours() {
        assert_eq!(diff("1\n2\n3\n4\n5\n", "1\n2\nx\n4\n5\n", 1), "  2\n- 3\n+ x\n  4\n");
    }

    #[test]
    fn changes_far_apart_show_apart() {
        let old: String = (0..20).map(|line| format!("{line}\n")).collect();
        let new = old.replace("3\n4", "4").replace("16\n", "16\nnew\n");
        assert_eq!(diff(&old, &new, 0), "- 3\n  ⋮\n+ new\n");
    }
}
