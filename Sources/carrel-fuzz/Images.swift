import Disk
import Machine
import Snapshot

/// Disk images, kernels and saved machines from elsewhere.
let imageTargets: [String: FuzzTarget] = [
  "qcow2": { bytes, count in
    precondition(Qcow2Fuzzing.run(input(bytes, count)), "a sound image was damaged")
  },
  "kernel": { bytes, count in
    precondition(
      KernelFuzzing.run(input(bytes, count)) != .wrong, "a kernel lies where it must not")
  },
  "snapshot": { bytes, count in
    precondition(
      SnapshotFuzzing.run(input(bytes, count), look: SavedMachineFuzzing.look),
      "a snapshot is not what was accepted")
  },
]
