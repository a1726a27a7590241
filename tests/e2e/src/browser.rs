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
        let page = self.visit(url)?;
        self.send(&page, "Sign in", &[("name", user), ("password", &Installation::password(user))])
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
            form.with_context(|| format!("{} has no form with the button {button:?}:\n{}", page.url, page.html))?;
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
        let output = self.lab_box.command(command).run()?.stdout;
        let mut parts = output.rsplitn(3, '\n');
        let (status, url, html) = (parts.next(), parts.next(), parts.next());
        let (Some(status), Some(url), Some(html)) = (status, url, html) else { bail!("curl said {output:?}") };
        ensure!(status.starts_with('2'), "{url} answered {status}:\n{html}");
        Ok(Page { url: url.to_owned(), html: html.to_owned() })
    }
}

fn origin(url: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no URL"))?;
    Ok(format!("{scheme}://{}", rest.split('/').next().unwrap_or_default()))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
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
    fn an_origin_ends_at_the_path() {
        assert_eq!(origin("https://c.example.com:8443/a/b").unwrap(), "https://c.example.com:8443");
        assert!(origin("nonsense").is_err());
    }
}
