/// How two texts differ, as `diff -u` shows it: lines marked `-` and `+` with up to `context` shared lines around them, below
/// a line with their numbers (`@@ -7,4 +7,5 @@`). Nothing where they don't.
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
    hunks(&lines, context)
}

/// The changed lines with their neighbours, each stretch below the numbers of its lines.
fn hunks(lines: &[(char, &str)], context: usize) -> String {
    let near = |at: usize| {
        let window = &lines[at.saturating_sub(context)..(at + context + 1).min(lines.len())];
        window.iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = String::new();
    // How many lines of either text are behind us.
    let (mut old, mut new, mut at) = (0, 0, 0);
    while at < lines.len() {
        let end = (at..lines.len()).find(|at| !near(*at)).unwrap_or(lines.len());
        let hunk = &lines[at..end];
        let of = |other: char| hunk.iter().filter(|(mark, _)| *mark != other).count();
        let (in_old, in_new) = (of('+'), of('-'));
        if !hunk.is_empty() {
            out.push_str(&format!("@@ -{} +{} @@\n", range(old, in_old), range(new, in_new)));
        }
        for (mark, line) in hunk {
            out.push_str(&format!("{mark}{line}\n"));
        }
        // Lines that nobody needs are shared.
        let next = (end..lines.len()).find(|at| near(*at)).unwrap_or(lines.len());
        (old, new, at) = (old + in_old + next - end, new + in_new + next - end, next);
    }
    out
}

/// The numbers of lines behind which as many lie, as `diff -u` writes them.
fn range(before: usize, count: usize) -> String {
    match count {
        // None of them: named is the line behind which they would be.
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        _ => format!("{},{count}", before + 1),
    }
}

/// A difference in the colours of `diff --color`.
pub(crate) fn paint(diff: &str) -> String {
    let colour = |line: &str| match line.chars().next() {
        Some('-') => "\u{1b}[31m",
        Some('+') => "\u{1b}[32m",
        Some('@') => "\u{1b}[36m",
        _ => "",
    };
    let painted = diff.lines().map(|line| match colour(line) {
        "" => format!("{line}\n"),
        colour => format!("{colour}{line}\u{1b}[0m\n"),
    });
    painted.collect()
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
    fn a_changed_line_shows_with_its_neighbours_and_their_numbers() {
        assert_eq!(diff("1\n2\n3\n4\n5\n", "1\n2\nx\n4\n5\n", 1), "@@ -2,3 +2,3 @@\n 2\n-3\n+x\n 4\n");
        assert_eq!(diff("", "1\n2\n", 3), "@@ -0,0 +1,2 @@\n+1\n+2\n");
        assert_eq!(diff("1\n", "", 3), "@@ -1 +0,0 @@\n-1\n");
    }

    #[test]
    fn changes_far_apart_show_apart() {
        let old: String = (1..=20).map(|line| format!("{line}\n")).collect();
        let new = old.replace("3\n4\n5", "3\n5").replace("17\n", "17\nnew\n");
        assert_eq!(diff(&old, &new, 1), "@@ -3,3 +3,2 @@\n 3\n-4\n 5\n@@ -17,2 +16,3 @@\n 17\n+new\n 18\n");
    }

    #[test]
    fn colours_stand_around_what_changes_only() {
        let painted = paint("@@ -1 +1,2 @@\n 1\n+2\n-3\n");
        let wanted = "\u{1b}[36m@@ -1 +1,2 @@\u{1b}[0m\n 1\n\u{1b}[32m+2\u{1b}[0m\n\u{1b}[31m-3\u{1b}[0m\n";
        assert_eq!(painted, wanted);
    }
}
