import Disk

/// Disk images from elsewhere.
let imageTargets: [String: FuzzTarget] = [
  "qcow2": { bytes, count in
    precondition(Qcow2Fuzzing.run(input(bytes, count)), "a sound image was damaged")
  }
]
