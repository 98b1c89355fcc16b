import RFB

/// The RFB handshakes: what a viewer, or a display process, may send.
let handshakeTargets: [String: FuzzTarget] = [
  "rfb-server": { bytes, count in HandshakeFuzzing.serve(input(bytes, count)) },
  "rfb-client": { bytes, count in HandshakeFuzzing.connect(input(bytes, count)) },
]
