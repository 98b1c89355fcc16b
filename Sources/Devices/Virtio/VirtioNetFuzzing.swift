import DeviceModel

extension VirtioCardsFuzzing {
  /// A wire whose other end sends back what came, as far as it may; with queues and unfinished
  /// frames, if so wanted.
  final class Wire: NetworkBackend {
    private static let most = 16
    let takesUnfinished: Bool
    let queues: Int
    var onReceive: ((NetworkFrame) -> Bool)?
    var onConnectionChange: (() -> Void)?
    var isConnected = true { didSet { onConnectionChange?() } }
    private(set) var offloads: NetworkOffloads = []
    private(set) var used: Int
    /// What came and was asked for was as it may be.
    private(set) var isSound = true
    private var frames: [NetworkFrame] = []

    init(takesUnfinished: Bool, queues: Int) {
      (self.takesUnfinished, self.queues, used) = (takesUnfinished, queues, queues)
    }

    func send(_ frame: NetworkFrame) {
      let header = frame.header
      let isWhole = header.segmentation == .whole
      if !(0..<used).contains(frame.queue) || header.isValid || header.segmentation == nil
        || isWhole && frame.bytes.count > VirtioNet.largestFrame
        || !takesUnfinished && header != VirtioNetHeader()
        || !isWhole && !header.needsChecksum
        || header.checksumStart + header.checksumOffset > frame.bytes.count
      {
        isSound = false
      }
      if frames.count < Self.most { frames.append(frame) }
    }

    func hasRoom() {}

    func accept(_ offloads: NetworkOffloads) {
      self.offloads = offloads
      if !takesUnfinished { return }
      let hasSegments = !offloads.isDisjoint(with: [.tcp4, .tcp6])
      if !offloads.isEmpty && !offloads.contains(.checksum)
        || offloads.contains(.congestion) && !hasSegments
      {
        isSound = false
      }
    }

    func use(queues: Int) -> Bool {
      if !(1...self.queues).contains(queues) { isSound = false }
      used = queues
      return true
    }

    func turn() {
      guard let frame = frames.first, onReceive?(frame) == true else { return }
      frames.removeFirst()
    }

    /// A frame that no card sent, with whatever left to do that a header can say.
    func bring(_ what: UInt8, _ value: UInt8) {
      let bytes = (0..<VirtioNetHeader.size).map { place in
        value &* UInt8(truncatingIfNeeded: place * 31 + 1) ^ what >> UInt8(place & 3)
      }
      var header = VirtioNetHeader(bytes)
      if what & 8 != 0 { header.segmentation = value & 1 == 0 ? .tcp4 : .tcp6 }
      if what & 16 != 0 { header.hasCongestion = false }
      let size = what & 32 == 0 ? 14 + Int(value) : 14 + Int(value) << 8
      let frame = [UInt8](repeating: what, count: size)
      _ = onReceive?(NetworkFrame(frame, header: header, queue: Int(value) % max(used, 1)))
    }
  }
}
