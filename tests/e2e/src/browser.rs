use anyhow::{Context, Result, bail, ensure};
use lab::LabBox;

use crate::Installation;

/// A person's browser in a box: it keeps cookies, follows redirects, and sends the forms that it finds on pages.
#[derive(Debug)]
pub struct Browser<'a> {
    lab_box: &'a LabBox,
    jar: String,
}

/// A page as the browser has it.
#[derive(Debug)]
pub struct Page {
    /// Where it is, after redirects.
    pub url: String,
    /// Its HTML.
    pub html: String,
}

impl<'a> Browser<'a> {
    /// Opens a browser without cookies; `profile` keeps it apart from others in the box.
    pub fn open(lab_box: &'a LabBox, profile: &str) -> Result<Self> {
        let jar = format!("/tmp/browser-{profile}.txt");
        lab_box.write(&jar, "", 0o600)?;
        Ok(Self { lab_box, jar })
    }

    /// Goes to a URL.
    pub fn visit(&self, url: &str) -> Result<Page> {
        self.fetch(url, &[])
    }

    /// Opens the URL that a login shows and signs in as a user of the walkthrough; answers the page that asks about the
    /// device.
    pub fn sign_in(&self, url: &str, user: &str) -> Result<Page> {
        self.sign_in_with(url, user, &Installation::password(user))
    }

    /// As [`Browser::sign_in`], for a user with another password.
    pub fn sign_in_with(&self, url: &str, user: &str, password: &str) -> Result<Page> {
        let page = self.visit(url)?;
        let signed_in = self.send(&page, "Sign in", &[("name", user), ("password", password)]);
        signed_in.with_context(|| format!("{user} can't sign in"))
    }

    /// Lets the device in that the page asks about.
    pub fn let_in(&self, page: &Page) -> Result<Page> {
        self.send(page, "Yes, let it in", &[])
    }

    /// Sends the page's first form whose button says `button`, with these fields filled in.
    pub fn send(&self, page: &Page, button: &str, fields: &[(&str, &str)]) -> Result<Page> {
        let forms = page.html.split("<form").skip(1).filter_map(|rest| rest.split("</form>").next());
        let form = forms.into_iter().find(|form| form.contains(&format!(">{button}<")));
        let form =
            form.with_context(|| format!("{} has no form with the button {button:?}: {}", page.url, page.says()))?;
        let action = attribute(form.split('>').next().unwrap_or_default(), "action").unwrap_or_default();
        let url = match action.as_str() {
            "" => page.url.clone(),
            path if path.starts_with('/') => origin(&page.url)? + path,
            url => url.to_owned(),
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for tag in form.split('<').filter(|tag| tag.starts_with("input") || tag.starts_with("button")) {
            let tag = tag.split('>').next().unwrap_or_default();
            let hidden = attribute(tag, "type").as_deref() == Some("hidden");
            let pressed = tag.starts_with("button") && form.contains(&format!("{tag}>{button}<"));
            if let Some(name) = attribute(tag, "name").filter(|_| hidden || pressed) {
                pairs.push((name, attribute(tag, "value").unwrap_or_default()));
            }
        }
        pairs.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        ensure!(!pairs.is_empty(), "the form with the button {button:?} on {} has no fields", page.url);
        self.fetch(&url, &pairs)
    }

    fn fetch(&self, url: &str, form: &[(String, String)]) -> Result<Page> {
        let mut command =
            ["curl", "-sS", "-L", "--max-time", "20", "-b", &self.jar, "-c", &self.jar].map(str::to_owned).to_vec();
        for (name, value) in form {
            command.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        if !form.is_empty() {
            command.extend(["-H".to_owned(), format!("Origin: {}", origin(url)?)]);
        }
        command.extend(["-w".to_owned(), "\n%{url_effective}\n%{http_code}".to_owned(), url.to_owned()]);
        let output = self.lab_box.command(command).finish()?;
        ensure!(output.ended.is_success(), "{url} can't be opened: {}", reason(&output.stderr));
        let mut parts = output.stdout.rsplitn(3, '\n');
        let (status, url, html) = (parts.next(), parts.next(), parts.next());
        let (Some(status), Some(url), Some(html)) = (status, url, html) else { bail!("curl said {:?}", output.stdout) };
        let page = Page { url: url.to_owned(), html: html.to_owned() };
        ensure!(status.starts_with('2'), "{url} answered {status}: {}", page.says());
        Ok(page)
    }
}

impl Page {
    /// What the page's list of facts says of something, such as `Host name`.
    pub fn fact(&self, name: &str) -> Option<String> {
        let rest = self.html.split(&format!("<dt>{name}</dt><dd>")).nth(1)?;
        Some(unescape(rest.split("</dd>").next()?))
    }

    /// What is wrong, in the page's own words; else its beginning as a person reads it.
    fn says(&self) -> String {
        let marked = self.html.split("class=\"problem\">").nth(1).and_then(|rest| rest.split("</p>").next());
        let body = self.html.split("</head>").last().unwrap_or_default();
        let text: String =
            unescape(&without_tags(marked.unwrap_or(body))).split_whitespace().collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(MOST_WORDS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// How much of a page an error quotes.
const MOST_WORDS: usize = 300;

/// Why curl brought no page, without what names curl.
fn reason(stderr: &str) -> &str {
    let line = stderr.trim().lines().last().unwrap_or_default();
    line.strip_prefix("curl: ").and_then(|line| line.split_once(") ")).map_or(line, |(_, reason)| reason)
}

fn without_tags(html: &str) -> String {
    html.split('<').enumerate().fold(String::new(), |text, (at, part)| match (at, part.split_once('>')) {
        (0, _) => part.to_owned(),
        (_, Some((_, rest))) => text + " " + rest,
        (_, None) => text,
    })
}

fn origin(url: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no URL"))?;
    Ok(format!("{scheme}://{}", rest.split('/').next().unwrap_or_default()))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(unescape(value))
}

fn unescape(text: &str) -> String {
    let marks = [("&quot;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    marks.into_iter().fold(text.to_owned(), |text, (escaped, mark)| text.replace(escaped, mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_read_with_its_escapes() {
        assert_eq!(attribute(r#"input type="hidden" value="a&amp;b""#, "value").unwrap(), "a&b");
        assert_eq!(attribute("input", "value"), None);
    }

    #[test]
    fn a_page_is_quoted_by_what_it_says_is_wrong_and_never_as_html() {
        let page = |html: &str| Page { url: String::new(), html: html.to_owned() };
        let refused = "<html><head><style>p{}</style></head><body><h1>Sign in</h1>\n<p class=\"problem\">the name &amp; password\n\
                       don&#39;t fit</p><form>x</form></body></html>";
        assert_eq!(page(refused).says(), "the name & password don't fit");
        let other = "<html><head><style>p{}</style></head><body><h1>Towline</h1><p>This is <code>it</code>.</p></body>";
        assert_eq!(page(other).says(), "Towline This is it .");
        assert_eq!(page(&"long ".repeat(1000)).says().chars().count(), MOST_WORDS + 1);
    }

    #[test]
    fn a_fact_is_read_by_its_name() {
        let html = "<dl><dt>Host name</dt><dd>laptop &amp; more</dd><dt>System</dt><dd>linux 6.1</dd></dl>".to_owned();
        let page = Page { url: String::new(), html };
        assert_eq!(page.fact("Host name").unwrap(), "laptop & more");
        assert_eq!(page.fact("System").unwrap(), "linux 6.1");
        assert_eq!(page.fact("Address"), None);
    }

    #[test]
    fn why_there_is_no_page_is_told_without_the_command() {
        assert_eq!(reason("curl: (6) Could not resolve host: nonsense\n"), "Could not resolve host: nonsense");
        assert_eq!(reason("something else"), "something else");
    }

    #[test]
    fn an_origin_ends_at_the_path() {
        assert_eq!(origin("https://c.example.com:8443/a/b").unwrap(), "https://c.example.com:8443");
        assert!(origin("nonsense").is_err());
    }
}
