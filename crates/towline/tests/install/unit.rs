//! A unit of systemd, as its file has it.

/// The settings of a unit's file, whatever their section.
#[derive(Debug)]
pub(crate) struct Unit {
    settings: Vec<(String, String)>,
}

impl Unit {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
        let settings = lines.filter_map(|line| line.split_once('='));
        Self { settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// The value of a setting that stands there once.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.settings.iter().filter(|(setting, _)| setting == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} stands there twice");
        first
    }

    /// The words of a setting.
    pub(crate) fn words(&self, name: &str) -> Vec<&str> {
        self.one(name).unwrap_or_default().split_whitespace().collect()
    }

    /// The folders that the service has for itself.
    pub(crate) fn state_folders(&self) -> Vec<String> {
        self.words("StateDirectory").iter().map(|name| format!("/var/lib/{name}")).collect()
    }
}
