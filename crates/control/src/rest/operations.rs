//! The operations of the API, each by the module of its noun.

use api::*;
use tailnet::{Command, DnsPatch};

use super::{By, Identity, Rest, desk, devices, dns, policy, settings, users, why};

impl Api for Rest {
    type Identity = Identity;
    type LargeBody = desk::Place;

    fn admit_large(&self, who: &Identity) -> Result<desk::Place, ApiError> {
        self.desk.admit_large(who.tailnet)
    }

    async fn authenticate(&self, credential: Credential, peer: Peer) -> Result<Caller<Identity>, ApiError> {
        self.find_caller(credential, peer).await
    }

    async fn issue_token(&self, request: TokenRequest, peer: Peer) -> Result<AccessToken, ApiError> {
        self.make_access_token(request, peer).await
    }

    async fn list_devices(
        &self,
        by: By<ReadDevices>,
        at: InTailnet,
        query: DeviceQuery,
    ) -> Result<Json<DeviceList>, ApiError> {
        self.devices(by.identity(), &at, &query).map(Json)
    }

    async fn get_device(
        &self,
        by: By<ReadDevices>,
        at: OfDevice,
        fields: DeviceFields,
    ) -> Result<Json<Device>, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.look(by.identity(), |tailnet| devices::show(tailnet, id).map(|device| Json(fields.prune(device))))
    }

    async fn delete_device(&self, by: By<WriteDevices>, at: OfDevice) -> Result<Done, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.done(by.identity(), Command::DeleteNode(id)).await
    }

    async fn expire_device(&self, by: By<WriteDevices>, at: OfDevice) -> Result<Done, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.done(by.identity(), Command::ExpireNode(id)).await
    }

    async fn list_device_routes(&self, by: By<ReadRoutes>, at: OfDevice) -> Result<Json<DeviceRoutes>, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.look(by.identity(), |tailnet| devices::routes(tailnet, id).map(Json))
    }

    async fn set_device_routes(
        &self,
        by: By<WriteRoutes>,
        at: OfDevice,
        Json(set): Json<SetDeviceRoutes>,
    ) -> Result<Json<DeviceRoutes>, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.execute(by.identity(), Command::SetRoutes(id, set.routes)).await?;
        self.look(by.identity(), |tailnet| devices::routes(tailnet, id).map(Json))
    }

    async fn authorize_device(
        &self,
        by: By<WriteDevices>,
        at: OfDevice,
        Json(set): Json<AuthorizeDevice>,
    ) -> Result<Done, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.done(by.identity(), Command::SetAuthorized(id, set.authorized)).await
    }

    async fn set_device_name(
        &self,
        by: By<WriteDevices>,
        at: OfDevice,
        Json(set): Json<SetDeviceName>,
    ) -> Result<Done, ApiError> {
        let id = self.device(by.identity(), &at)?;
        let name = self.look(by.identity(), |tailnet| Ok(devices::label(tailnet, &set.name)))?;
        self.done(by.identity(), Command::RenameNode(id, name)).await
    }

    async fn set_device_tags(
        &self,
        by: By<WriteDevices>,
        at: OfDevice,
        Json(set): Json<SetDeviceTags>,
    ) -> Result<Done, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.done(by.identity(), Command::SetNodeTags(id, set.tags)).await
    }

    async fn set_device_key(
        &self,
        by: By<WriteDevices>,
        at: OfDevice,
        Json(set): Json<SetDeviceKey>,
    ) -> Result<Done, ApiError> {
        let id = self.device(by.identity(), &at)?;
        let expiry = if set.key_expiry_disabled { tailnet::KeyExpiry::Disabled } else { tailnet::KeyExpiry::Enabled };
        self.done(by.identity(), Command::SetKeyExpiry(id, expiry)).await
    }

    async fn ping_device(
        &self,
        by: By<ReadDevices>,
        at: OfDevice,
        Json(ping): Json<PingDevice>,
    ) -> Result<Json<DevicePing>, ApiError> {
        let id = self.device(by.identity(), &at)?;
        self.ping(by.identity(), id, ping).await.map(Json)
    }

    async fn list_keys(
        &self,
        by: By<OrOwn<ReadKeys>>,
        at: InTailnet,
        query: KeyQuery,
    ) -> Result<Json<KeyList>, ApiError> {
        self.keys(&by, &at, query).map(Json)
    }

    async fn create_key(
        &self,
        by: By<OrOwn<WriteKeys>>,
        at: InTailnet,
        Json(new): Json<CreateKey>,
    ) -> Result<Json<Key>, ApiError> {
        self.make_key(&by, &at, new).await.map(Json)
    }

    async fn get_key(&self, by: By<OrOwn<ReadKeys>>, at: OfKey) -> Result<Json<Key>, ApiError> {
        self.key(&by, &at).map(Json)
    }

    async fn delete_key(&self, by: By<OrOwn<WriteKeys>>, at: OfKey) -> Result<Done, ApiError> {
        self.take_key_away(&by, &at).await
    }

    async fn get_policy(
        &self,
        by: By<ReadPolicy>,
        at: InTailnet,
        query: PolicyQuery,
        form: PolicyForm,
    ) -> Result<PolicyDocument, ApiError> {
        self.look_at(by.identity(), &at, policy::InForce::of)?.show(query, form)
    }

    async fn set_policy(
        &self,
        by: By<WritePolicy>,
        at: InTailnet,
        upload: PolicyUpload,
    ) -> Result<PolicyDocument, ApiError> {
        self.put_policy(by.identity(), &at, upload).await
    }

    async fn preview_policy(
        &self,
        by: By<ReadPolicy>,
        at: InTailnet,
        query: PreviewQuery,
        PolicyText(text): PolicyText,
    ) -> Result<Json<PolicyPreview>, ApiError> {
        self.try_out(by.identity(), &at, move |trial| policy::preview(trial, query, &text).map(Json)).await
    }

    async fn validate_policy(
        &self,
        by: By<ReadPolicy>,
        at: InTailnet,
        check: PolicyCheck,
    ) -> Result<Json<PolicyVerdict>, ApiError> {
        let author = by.identity().acting_user();
        self.try_out(by.identity(), &at, move |trial| policy::validate(trial, author, check).map(Json)).await
    }

    async fn explain_policy(
        &self,
        by: By<ReadPolicy>,
        at: InTailnet,
        query: WhyQuery,
    ) -> Result<Json<PolicyExplanation>, ApiError> {
        self.try_out(by.identity(), &at, move |trial| why::explain(trial, &query).map(Json)).await
    }

    async fn policy_history(
        &self,
        by: By<ReadPolicy>,
        at: InTailnet,
        query: HistoryQuery,
    ) -> Result<Json<PolicyHistory>, ApiError> {
        self.history(by.identity(), &at, query).await.map(Json)
    }

    async fn list_nameservers(&self, by: By<ReadDns>, at: InTailnet) -> Result<Json<DnsNameservers>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(dns::nameservers(tailnet.dns()))))
    }

    async fn set_nameservers(
        &self,
        by: By<WriteDns>,
        at: InTailnet,
        Json(set): Json<DnsNameservers>,
    ) -> Result<Json<DnsNameserversSet>, ApiError> {
        let dns = self.change_dns(by.identity(), &at, DnsPatch::NameServers(set.dns)).await?;
        Ok(Json(DnsNameserversSet { dns: dns::nameservers(&dns).dns, magic_dns: dns.magic_dns }))
    }

    async fn get_dns_preferences(&self, by: By<ReadDns>, at: InTailnet) -> Result<Json<DnsPreferences>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(DnsPreferences { magic_dns: tailnet.dns().magic_dns })))
    }

    async fn set_dns_preferences(
        &self,
        by: By<WriteDns>,
        at: InTailnet,
        Json(set): Json<DnsPreferences>,
    ) -> Result<Json<DnsPreferences>, ApiError> {
        let dns = self.change_dns(by.identity(), &at, DnsPatch::MagicDns(set.magic_dns)).await?;
        Ok(Json(DnsPreferences { magic_dns: dns.magic_dns }))
    }

    async fn list_search_paths(&self, by: By<ReadDns>, at: InTailnet) -> Result<Json<DnsSearchPaths>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(dns::search_paths(tailnet.dns()))))
    }

    async fn set_search_paths(
        &self,
        by: By<WriteDns>,
        at: InTailnet,
        Json(set): Json<DnsSearchPaths>,
    ) -> Result<Json<DnsSearchPaths>, ApiError> {
        let patch = DnsPatch::Search(dns::read_search_paths(&set.search_paths)?);
        let dns = self.change_dns(by.identity(), &at, patch).await?;
        Ok(Json(dns::search_paths(&dns)))
    }

    async fn get_split_dns(&self, by: By<ReadDns>, at: InTailnet) -> Result<Json<SplitDns>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(dns::split(tailnet.dns()))))
    }

    async fn update_split_dns(
        &self,
        by: By<WriteDns>,
        at: InTailnet,
        Json(set): Json<SplitDns>,
    ) -> Result<Json<SplitDns>, ApiError> {
        let dns = self.change_dns(by.identity(), &at, DnsPatch::Split(dns::read_split(set)?)).await?;
        Ok(Json(dns::split(&dns)))
    }

    async fn set_split_dns(
        &self,
        by: By<WriteDns>,
        at: InTailnet,
        Json(set): Json<SplitDns>,
    ) -> Result<Json<SplitDns>, ApiError> {
        let patch = DnsPatch::WholeSplit(dns::read_whole_split(set)?);
        let dns = self.change_dns(by.identity(), &at, patch).await?;
        Ok(Json(dns::split(&dns)))
    }

    async fn get_dns_configuration(&self, by: By<ReadDns>, at: InTailnet) -> Result<Json<DnsConfiguration>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(dns::configuration(tailnet.dns()))))
    }

    async fn set_dns_configuration(
        &self,
        by: By<WriteDns>,
        at: InTailnet,
        Json(set): Json<DnsConfiguration>,
    ) -> Result<Json<DnsConfiguration>, ApiError> {
        let patch = DnsPatch::Whole(dns::read_configuration(set)?);
        let dns = self.change_dns(by.identity(), &at, patch).await?;
        Ok(Json(dns::configuration(&dns)))
    }

    async fn list_users(&self, by: By<ReadUsers>, at: InTailnet, query: UserQuery) -> Result<Json<UserList>, ApiError> {
        let now = self.coordination.now();
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(users::list(tailnet, query, now))))
    }

    async fn create_user(
        &self,
        by: By<WriteUsers>,
        at: InTailnet,
        Json(new): Json<CreateUser>,
    ) -> Result<Json<User>, ApiError> {
        users::within_credential(&by, users::role(new.role))?;
        self.make_user(by.identity(), &at, new).await.map(Json)
    }

    async fn get_user(&self, by: By<ReadUsers>, at: OfUser) -> Result<Json<User>, ApiError> {
        let (id, now) = (self.user(by.identity(), &at)?, self.coordination.now());
        self.look(by.identity(), |tailnet| users::show(tailnet, id, now).map(Json))
    }

    async fn set_user_role(
        &self,
        by: By<WriteUsers>,
        at: OfUser,
        Json(set): Json<SetUserRole>,
    ) -> Result<Done, ApiError> {
        let (id, role) = (self.touched_user(&by, &at)?, users::role(set.role));
        users::within_credential(&by, role)?;
        self.done(by.identity(), Command::SetRole(id, role)).await
    }

    async fn set_user_password(
        &self,
        by: By<WriteUsers>,
        at: OfUser,
        Json(set): Json<SetUserPassword>,
    ) -> Result<Done, ApiError> {
        let id = self.touched_user(&by, &at)?;
        let hash = self.hash_password(set.password).await?;
        self.execute(by.identity(), Command::SetPassword(id, hash)).await?;
        self.sign_out_everywhere(id).await
    }

    async fn approve_user(&self, by: By<WriteUsers>, at: OfUser) -> Result<Done, ApiError> {
        let id = self.touched_user(&by, &at)?;
        self.done(by.identity(), Command::ApproveUser(id)).await
    }

    async fn suspend_user(&self, by: By<WriteUsers>, at: OfUser) -> Result<Done, ApiError> {
        let id = self.touched_user(&by, &at)?;
        self.execute(by.identity(), Command::SuspendUser(id)).await?;
        self.sign_out_everywhere(id).await
    }

    async fn restore_user(&self, by: By<WriteUsers>, at: OfUser) -> Result<Done, ApiError> {
        let id = self.touched_user(&by, &at)?;
        self.done(by.identity(), Command::RestoreUser(id)).await
    }

    async fn delete_user(&self, by: By<WriteUsers>, at: OfUser) -> Result<Done, ApiError> {
        let id = self.touched_user(&by, &at)?;
        self.execute(by.identity(), Command::DeleteUser(id)).await?;
        self.sign_out_everywhere(id).await
    }

    async fn set_user_name(
        &self,
        by: By<WriteUsers>,
        at: OfUser,
        Json(set): Json<SetUserName>,
    ) -> Result<Done, ApiError> {
        let id = self.touched_user(&by, &at)?;
        self.done(by.identity(), Command::SetDisplayName(id, set.display_name)).await
    }

    async fn get_names(&self, by: By<ReadNames>, at: InTailnet) -> Result<Json<TailnetNames>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(settings::names(tailnet.record()))))
    }

    async fn set_names(
        &self,
        by: By<WriteNames>,
        at: InTailnet,
        Json(set): Json<SetTailnetNames>,
    ) -> Result<Json<TailnetNames>, ApiError> {
        self.look_at(by.identity(), &at, |_| Ok(()))?;
        self.execute(by.identity(), settings::set_names(set)?).await?;
        self.look(by.identity(), |tailnet| Ok(Json(settings::names(tailnet.record()))))
    }

    async fn get_settings(&self, by: By<ReadSettings>, at: InTailnet) -> Result<Json<TailnetSettings>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(settings::show(tailnet.settings()))))
    }

    async fn update_settings(
        &self,
        by: By<WriteSettings>,
        at: InTailnet,
        Json(set): Json<TailnetSettings>,
    ) -> Result<Json<TailnetSettings>, ApiError> {
        let patch = settings::patch(&by, set)?;
        self.look_at(by.identity(), &at, |_| Ok(()))?;
        if patch != tailnet::SettingsPatch::default() {
            self.execute(by.identity(), Command::UpdateSettings(patch)).await?;
        }
        self.look(by.identity(), |tailnet| Ok(Json(settings::show(tailnet.settings()))))
    }

    async fn list_services(&self, by: By<ReadServices>, at: InTailnet) -> Result<Json<ServiceList>, ApiError> {
        self.look_at(by.identity(), &at, |tailnet| Ok(Json(settings::services(tailnet))))
    }

    async fn get_service(&self, by: By<ReadServices>, at: OfService) -> Result<Json<VirtualService>, ApiError> {
        let (within, name) = (InTailnet { tailnet: at.tailnet }, at.service);
        self.look_at(by.identity(), &within, |tailnet| settings::find_service(tailnet, &name).map(Json))
    }
}
