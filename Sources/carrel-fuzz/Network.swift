import Machine

/// What a network may send along its socket, and a guest to it.
let networkTargets: [String: FuzzTarget] = [
  "network-stream": { bytes, count in
    precondition(
      NetworkFuzzing.run(input(bytes, count)), "a frame was changed, lost or for this host")
  }
]
