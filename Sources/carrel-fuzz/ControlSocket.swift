import QMP

/// What a client of the control socket may send, and what a guest may answer as its agent.
let controlTargets: [String: FuzzTarget] = [
  "clone-request": { bytes, count in
    precondition(CloneRequest.readsAlike(input(bytes, count)))
  },
  "qmp": { bytes, count in QMPFuzzing.run(input(bytes, count)) },
  "guest-agent": { bytes, count in
    precondition(GuestAgentFuzzing.run(input(bytes, count)), "an answer was taken twice, or cut")
  },
]
