use super::gap::{Gap, Style};
use super::{Body, Composite, Item, Row};

/// Lays out a whole document.
pub(super) fn document(root: &Item<'_>, is_json: bool) -> String {
    let top = Style { comments: "", next: "", tight_start: true, tight_end: false };
    let mut out = String::new();
    if !root.before.is_blank() {
        out.push_str(root.before.render(&top).trim_start_matches([' ', '\n']));
    }
    out.push_str(&item(root, 0, is_json));
    match root.after.is_blank() {
        true => out.push('\n'),
        false => {
            out.push_str(&root.after.clone().ended().render(&Style { tight_start: false, tight_end: true, ..top }))
        }
    }
    out
}

fn item(item: &Item<'_>, depth: usize, is_json: bool) -> String {
    match &item.body {
        Body::Scalar(text) => text.clone(),
        Body::Composite(all) => composite(all, depth, is_json),
    }
}

/// A row in its parts: `lead name: gap value after`.
struct Laid {
    lead: String,
    name: String,
    gap: String,
    value: String,
    after: String,
    /// Has neither line ends of its own nor a value with some: may be aligned with its neighbours.
    aligns: bool,
}

fn composite(all: &Composite<'_>, depth: usize, is_json: bool) -> String {
    let (open, close) = all.brackets;
    if all.rows.is_empty() {
        return format!("{open}{}{close}", empty(&all.tail, depth));
    }
    let last = all.rows.len() - 1;
    let mut rows: Vec<Laid> =
        all.rows.iter().enumerate().map(|(at, row)| lay_row(all, row, at, at == last, depth, is_json)).collect();
    if all.expanded && open == '{' {
        align(&mut rows);
    }
    let mut out = String::from(open);
    for (at, row) in rows.iter().enumerate() {
        [&row.lead, &row.name, &row.gap, &row.value, &row.after].into_iter().for_each(|part| out.push_str(part));
        if at < last {
            out.push(',');
        }
    }
    let last = &all.rows[last].value;
    let tail = if all.trailing_comma { &all.tail } else { &last.after };
    let (inner, outer) = (tabs(depth + usize::from(all.expanded)), tabs(depth));
    let style = Style { comments: &inner, next: &outer, tight_start: false, tight_end: true };
    if all.expanded {
        if !is_json {
            out.push(',');
        }
        out.push_str(&tail.clone().ended().render(&style));
    } else {
        if all.trailing_comma && !last.after.is_blank() && !tail.is_blank() {
            out.push(',');
        }
        out.push_str(&tail.clone().open_ended().render(&style));
    }
    out.push(close);
    out
}

fn empty(tail: &Gap<'_>, depth: usize) -> String {
    if tail.is_blank() {
        return String::new();
    }
    let tail = if tail.is_broken() { tail.clone().ended() } else { tail.clone() };
    tail.render(&Style { comments: &tabs(depth + 1), next: &tabs(depth), tight_start: true, tight_end: true })
}

fn lay_row(all: &Composite<'_>, row: &Row<'_>, at: usize, is_last: bool, depth: usize, is_json: bool) -> Laid {
    let inner = depth + usize::from(all.expanded);
    // What is broken off within a row is indented further than the row.
    let (indent, further) = (tabs(inner), tabs(depth + 2));
    let broken_off = Style { comments: &further, next: &further, tight_start: true, tight_end: true };
    let lead = match (all.expanded, row.lead().is_blank()) {
        (true, _) => {
            let style = Style { comments: &indent, next: &indent, tight_start: at == 0, tight_end: false };
            row.lead().clone().broken().render(&style)
        }
        (false, true) => if at == 0 { "" } else { " " }.to_owned(),
        (false, false) => {
            let style = Style { comments: &indent, next: &indent, tight_start: false, tight_end: false };
            row.lead().clone().open_ended().render(&style)
        }
    };
    let after = match is_last && !all.trailing_comma {
        true => String::new(),
        false => row.value.after.clone().without_idle_ends().render(&broken_off),
    };
    let (mut name, mut gap) = (String::new(), String::new());
    if let Some(named) = &row.name {
        name = format!("{}{}:", named.text, named.after.clone().without_idle_ends().render(&broken_off));
        gap = match row.value.before.is_blank() && !row.value.before.is_broken() {
            true => " ".to_owned(),
            false => row.value.before.render(&broken_off),
        };
    }
    let broken = name.contains('\n') || gap.contains('\n');
    let value = item(&row.value, inner + usize::from(broken), is_json);
    let aligns = !broken && !after.contains('\n') && !row.value.is_broken();
    Laid { lead, name, gap, value, after, aligns }
}

/// Pads names so that the values of neighbours begin in one column. A blank line or comment between two rows parts them.
fn align(rows: &mut [Laid]) {
    let mut start = 0;
    while start < rows.len() {
        let apart = |row: &Laid| !row.aligns || row.lead.matches('\n').count() > 1;
        let more = rows[start + 1..].iter().take_while(|row| !apart(row)).count();
        let end = if rows[start].aligns { start + 1 + more } else { start + 1 };
        let block = &mut rows[start..end];
        let width = |row: &Laid| row.name.len() + row.gap.len();
        let widest = block.iter().map(width).max().unwrap_or(0);
        for row in block.iter_mut().filter(|row| row.aligns) {
            row.gap.push_str(&" ".repeat(widest - width(row)));
        }
        start = end;
    }
}

fn tabs(depth: usize) -> String {
    "\t".repeat(depth)
}
