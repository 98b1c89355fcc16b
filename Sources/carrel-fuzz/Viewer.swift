import VNCServer

/// What a viewer may send to a display process, once it is let in.
let viewerTargets: [String: FuzzTarget] = [
  "viewer": { bytes, count in
    precondition(ViewerFuzzing.run(input(bytes, count)), "pieces and whole differ, or a key stuck")
  }
]
