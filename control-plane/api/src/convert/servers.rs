//! Who may come in by the words of Linkerd.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_model::{
    Authorization, RouteTable,
    policy::{MOST_ROUTES, ServerRoutes, Servers},
};

use super::{ConvertError, authorization::at_most, port, required};
use crate::wire;

impl From<&Servers> for wire::Servers {
    fn from(servers: &Servers) -> Self {
        let routes = servers.routes().iter();
        Self {
            authorization: Some(servers.authorization().into()),
            routes: routes.map(|(port, routes)| (u32::from(*port), routes.into())).collect(),
        }
    }
}

impl From<&ServerRoutes> for wire::ServerRoutes {
    fn from(routes: &ServerRoutes) -> Self {
        Self { name: routes.name().to_string(), table: Some(routes.table().into()) }
    }
}

impl TryFrom<wire::Servers> for Servers {
    type Error = ConvertError;

    fn try_from(servers: wire::Servers) -> Result<Self, ConvertError> {
        let authorization = Authorization::try_from(required("servers' policies", servers.authorization)?)?;
        let routes = servers.routes.into_iter();
        let routes =
            routes.map(|(number, routes)| Ok((port("port of a server", number)?, routes.try_into()?)));
        Ok(Self::new(authorization, routes.collect::<Result<_, ConvertError>>()?))
    }
}

impl TryFrom<wire::ServerRoutes> for ServerRoutes {
    type Error = ConvertError;

    fn try_from(routes: wire::ServerRoutes) -> Result<Self, ConvertError> {
        let table = required("routes of a server", routes.table)?;
        at_most("number of a server's routes", table.rules.len(), MOST_ROUTES)?;
        Ok(Self::new(Arc::from(routes.name), RouteTable::try_from(table)?))
    }
}

impl From<&BTreeSet<usize>> for wire::Places {
    fn from(places: &BTreeSet<usize>) -> Self {
        Self { list: places.iter().map(|place| u32::try_from(*place).unwrap_or(u32::MAX)).collect() }
    }
}

impl TryFrom<wire::Places> for BTreeSet<usize> {
    type Error = ConvertError;

    fn try_from(places: wire::Places) -> Result<Self, ConvertError> {
        at_most("number of a policy's routes", places.list.len(), MOST_ROUTES)?;
        Ok(places.list.into_iter().filter_map(|place| usize::try_from(place).ok()).collect())
    }
}
