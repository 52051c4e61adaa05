//! Defaults of volumes (`SetDefaults_Volume` and those of its sources).

use serde_json::{Map, Value};

use crate::defaults::{Row, absent, empty_object, zero};

/// The rows for [`crate::defaults::table`].
pub(crate) const ROWS: &[Row] = &[
    ("core.v1.Volume", volume),
    ("core.v1.SecretVolumeSource", mode),
    ("core.v1.ConfigMapVolumeSource", mode),
    ("core.v1.DownwardAPIVolumeSource", mode),
    ("core.v1.ProjectedVolumeSource", mode),
    ("core.v1.ServiceAccountTokenProjection", token),
    ("core.v1.HostPathVolumeSource", host_path),
    ("core.v1.ISCSIVolumeSource", iscsi),
    ("core.v1.RBDVolumeSource", rbd),
];

/// 0644, as decimal JSON writes it.
const DEFAULT_MODE: i64 = 420;
/// How long projected tokens live unless the pod says otherwise.
const TOKEN_SECONDS: i64 = 3600;

/// A volume without any source is an `emptyDir`.
fn volume(volume: &mut Map<String, Value>) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        empty_object(volume, "emptyDir");
    }
}

fn mode(source: &mut Map<String, Value>) {
    absent(source, "defaultMode", DEFAULT_MODE);
}

fn token(projection: &mut Map<String, Value>) {
    absent(projection, "expirationSeconds", TOKEN_SECONDS);
}

fn host_path(source: &mut Map<String, Value>) {
    absent(source, "type", "");
}

fn iscsi(source: &mut Map<String, Value>) {
    zero(source, "iscsiInterface", "default");
}

fn rbd(source: &mut Map<String, Value>) {
    zero(source, "pool", "rbd");
    zero(source, "user", "admin");
    zero(source, "keyring", "/etc/ceph/keyring");
}
