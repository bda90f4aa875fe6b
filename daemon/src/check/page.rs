//! The report as a page: one file without anything from elsewhere, to be read, printed and sent.

use std::fmt::Write as _;

use super::judge::Verdict;
use super::report::Report;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:1.6rem 0 .3rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8885}\
th{font-weight:600}td:nth-child(1){width:7rem}td:nth-child(2){width:4rem}td:nth-child(3){width:13rem}\
td{overflow-wrap:anywhere}\
.v{font-weight:600;white-space:nowrap}.ok{color:#1a7f37}.warning{color:#9a6700}.failed{color:#cf222e}\
@media(prefers-color-scheme:dark){.ok{color:#57ab5a}.warning{color:#d4a72c}.failed{color:#ff7b72}}\
.mend{margin:.2rem 0 0;opacity:.85}.note{padding:.5rem .8rem;border:1px solid #8888;border-radius:4px}";

/// Text that stands for itself.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The sign and the name of a style: colour is never the only one.
const fn sign(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Ok => ("✓", "ok"),
        Verdict::Warning => ("!", "warning"),
        Verdict::Failed => ("✗", "failed"),
    }
}

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    let (node, time, version) = (report.node, plain(&report.time), plain(report.version));
    // Writing to a String does not fail.
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Duolog check, node{node}, {time}</title><style>{STYLE}</style></head><body>\n\
         <h1>Duolog check</h1><p>Asked for at node{node}, {time}, duolog {version}.</p>\n\
         <p><strong>{}</strong></p>\n",
        plain(&report.outcome())
    )
    .ok();
    if let Some(gap) = report.gap() {
        writeln!(out, "<p class=\"note\">{}.</p>", plain(&gap)).ok();
    }
    for (group, lines) in report.groups() {
        writeln!(
            out,
            "<h2>{}</h2><table><thead><tr><th>Result</th><th>Node</th><th>What</th>\
             <th>Found</th></tr></thead><tbody>",
            plain(group.name())
        )
        .ok();
        for line in lines {
            let (sign, style) = sign(line.verdict);
            let verdict = line.verdict.name();
            let node = line.node.map_or_else(|| "both".into(), |node| format!("node{node}"));
            let (item, text) = (plain(&line.item), plain(&line.text));
            write!(
                out,
                "<tr><td class=\"v {style}\">{sign} {verdict}</td><td>{node}</td><td>{item}</td>\
                 <td>{text}"
            )
            .ok();
            if let Some(mend) = &line.mend {
                write!(out, "<p class=\"mend\">→ {}</p>", plain(mend)).ok();
            }
            out.push_str("</td></tr>\n");
        }
        out.push_str("</tbody></table>\n");
    }
    out.push_str("</body></html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_cannot_become_a_part_of_the_page() {
        assert_eq!(plain("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
    }
}
