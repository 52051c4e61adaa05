//! Volumes of a pod: emptyDir, hostPath, configMap, secret, projected, downwardAPI.
