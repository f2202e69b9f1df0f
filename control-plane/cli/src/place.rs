//! Where a control plane keeps its CA, the key of join tokens and their records: a data directory, or a cluster.

use selvedge_control_plane::{
    cluster::Cluster,
    data_dir::DataDir,
    serve::attestation::{RecordFiles, RecordSecret, TokenRecords},
};

/// One of the two, opened.
pub(crate) enum Place {
    Directory(DataDir),
    Cluster(Cluster),
}

impl Place {
    pub(crate) fn records(&self) -> TokenRecords {
        match self {
            Self::Directory(data) => TokenRecords::Directory(RecordFiles::of(data.path())),
            Self::Cluster(cluster) => {
                TokenRecords::Cluster(RecordSecret::new(cluster.client().clone(), cluster.namespace()))
            }
        }
    }
}
