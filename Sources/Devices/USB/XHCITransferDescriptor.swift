/// One Transfer Descriptor: TRBs that are chained, and what comes after them on the ring
/// (section 3.2.8).
struct XHCITransferDescriptor {
  struct Piece: Equatable {
    var address: UInt64
    var trb: TRB

    /// Bytes in its buffer.
    var count: Int {
      switch trb.kind {
      case TRB.Kind.normal, TRB.Kind.dataStage: trb.length
      default: 0
      }
    }
  }

  /// What was found at an endpoint's place on its ring.
  enum Found {
    /// Nothing yet; the place beyond links.
    case nothing(XHCIRing)
    /// The beginning of one, or more than may be looked at now.
    case incomplete
    case whole(XHCITransferDescriptor)
    /// More links or TRBs than make sense.
    case endless(Piece)
  }

  /// TRBs, links among them.
  static let mostTRBs = 256

  var pieces: [Piece] = []
  /// Where the next one begins.
  var end: XHCIRing

  var count: Int { pieces.reduce(0) { $0 + $1.count } }

  /// The piece that holds byte `offset`, and how much of it is from there on.
  func piece(at offset: Int) -> (piece: Piece, left: Int)? {
    var start = 0
    for piece in pieces where piece.count > 0 {
      if offset < start + piece.count { return (piece, start + piece.count - offset) }
      start += piece.count
    }
    return pieces.first.map { ($0, 0) }
  }
}

extension XHCI {
  /// Reads the descriptor at an endpoint's place, but for what is not written yet.
  func descriptor(of endpoint: XHCIEndpoint) throws(HostSystemError)
    -> XHCITransferDescriptor.Found
  {
    var found = XHCITransferDescriptor(end: endpoint.ring)
    var links = 0
    for _ in 0..<XHCITransferDescriptor.mostTRBs {
      guard spend() else { return .incomplete }
      let address = found.end.pointer
      let trb = try trb(at: address, "a transfer ring")
      guard found.end.owns(trb) else {
        return found.pieces.isEmpty ? .nothing(found.end) : .incomplete
      }
      let piece = XHCITransferDescriptor.Piece(address: address, trb: trb)
      found.end.advance(over: trb)
      guard trb.kind != TRB.Kind.link else {
        links += 1
        guard links < Self.mostLinks else { return .endless(piece) }
        continue
      }
      links = 0
      found.pieces.append(piece)
      if !trb.has(TRB.Flag.chain) { return .whole(found) }
    }
    return .endless(.init(address: endpoint.ring.pointer, trb: TRB()))
  }

  /// Puts what the device sent into the buffers, from byte `offset` on.
  func scatter(_ bytes: [UInt8], into descriptor: XHCITransferDescriptor, at offset: Int)
    throws(HostSystemError)
  {
    var rest = bytes[...]
    var skipped = offset
    for piece in descriptor.pieces where !rest.isEmpty {
      let start = min(skipped, piece.count)
      skipped -= start
      let part = Array(rest.prefix(piece.count - start))
      guard !part.isEmpty else { continue }
      try put(part, at: piece.trb.parameter &+ UInt64(start), "a transfer's buffer")
      rest = rest.dropFirst(part.count)
    }
  }

  /// What the buffers hold for the device, at most `limit` bytes.
  func gather(_ descriptor: XHCITransferDescriptor, limit: Int) throws(HostSystemError)
    -> [UInt8]
  {
    var gathered: [UInt8] = []
    for piece in descriptor.pieces where piece.count > 0 {
      let count = min(piece.count, limit - gathered.count)
      guard count > 0 else { break }
      if piece.trb.has(TRB.Flag.immediateData) {
        gathered += LittleEndian.bytes(piece.trb.parameter).prefix(count)
      } else {
        gathered += try bytes(at: piece.trb.parameter, count: count, "a transfer's buffer")
      }
    }
    return gathered
  }
}
