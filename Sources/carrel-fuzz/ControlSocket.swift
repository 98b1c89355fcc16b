import QMP

/// What a client of the control socket may send.
let controlTargets: [String: FuzzTarget] = [
  "qmp": { bytes, count in QMPFuzzing.run(input(bytes, count)) }
]
