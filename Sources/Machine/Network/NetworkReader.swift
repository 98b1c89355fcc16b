import DeviceModel
import LinuxSystem

/// Reads frames for the guest, as far as its card takes them. Lives on the network thread.
final class NetworkReader {
  private enum Token {
    static let ending: UInt64 = 0
    static let room: UInt64 = 1
    static let unsent: UInt64 = 2
    static let complaint: UInt64 = 3
    static let addresses: UInt64 = 4
    /// The first of the queues.
    static let queues: UInt64 = 5
  }

  /// Where frames come from, and those that the card has no buffer for.
  private struct Source {
    let descriptor: FileDescriptor
    var refused: [NetworkFrame] = []
  }

  private static let mostComplaint = 1024
  /// What is read of a queue before the card is offered it, unless there is less.
  private static let mostFrames = 32
  private static let mostBytes = 1 << 18

  private weak var link: NetworkLink?
  private let lock: Lock
  private let poller: Poller
  private var buffer = FrameBuffer(longest: FrameBuffer.longestFrame)
  private var space: [UInt8]
  private var sources: [Source]
  private var isSending = false
  private var complaint: [UInt8] = []

  init(of link: NetworkLink, lock: Lock) throws(SystemError) {
    self.link = link
    self.lock = lock
    poller = try Poller()
    sources = link.medium.descriptors.map { Source(descriptor: $0) }
    space = [UInt8](repeating: 0, count: link.takesUnfinished ? FrameBuffer.longestFrame : 0)
    try poller.add(link.ending.descriptor, token: Token.ending)
    try poller.add(link.roomEvent.descriptor, token: Token.room)
    try poller.add(link.unsentEvent.descriptor, token: Token.unsent)
    if let complaints = link.complaints {
      try poller.add(complaints.descriptor, token: Token.complaint)
    }
    if let addresses = link.addresses {
      try poller.add(addresses.descriptor, token: Token.addresses)
    }
    for (index, source) in sources.enumerated() {
      try poller.add(source.descriptor, token: Token.queues + UInt64(index))
    }
  }

  func run() {
    while let events = try? poller.wait(),
      !events.contains(where: { $0.token == Token.ending }), let link
    {
      for event in events {
        switch event.token {
        case Token.room:
          link.roomEvent.drain()
          for index in sources.indices { offer([], of: index, link) }
        case Token.unsent:
          link.unsentEvent.drain()
          isSending = true
          watch(0, link)
        case Token.complaint: listen(link)
        case Token.addresses: link.addressesChanged()
        default: serve(Int(event.token - Token.queues), link)
        }
      }
    }
  }

  private func serve(_ index: Int, _ link: NetworkLink) {
    if isSending, link.flush() {
      isSending = false
      watch(index, link)
    }
    if link.isConnected, sources[index].refused.isEmpty { read(index, link) }
  }

  /// Waits for frames unless the card has no buffers, and for room in the socket if there is
  /// something to send.
  private func watch(_ index: Int, _ link: NetworkLink) {
    guard link.isConnected else { return }
    poller.remove(sources[index].descriptor)
    var interest: Poller.Interest = []
    if sources[index].refused.isEmpty { interest.insert(.readable) }
    if isSending { interest.insert(.writable) }
    guard !interest.isEmpty else { return }
    try? poller.add(sources[index].descriptor, interest, token: Token.queues + UInt64(index))
  }

  private func read(_ index: Int, _ link: NetworkLink) {
    switch link.medium {
    case .tap(let interface): readFrames(index, interface, link)
    case .stream(let socket): readStream(socket, link)
    }
  }

  private func readStream(_ socket: UnixSocket, _ link: NetworkLink) {
    do {
      let message = try socket.receive(blocking: false)
      guard !message.isEnd, let frames = buffer.take(message.bytes) else { return end(link) }
      offer(frames.map { NetworkFrame($0) }, of: 0, link)
    } catch  where error.kind == .wouldBlock || error.kind == .interrupted {
      // Nothing came after all.
    } catch {
      end(link)
    }
  }

  private func readFrames(_ index: Int, _ interface: TAPInterface, _ link: NetworkLink) {
    var frames: [NetworkFrame] = []
    var count = 0
    do {
      while frames.count < Self.mostFrames, count < Self.mostBytes,
        let (header, frame) = try interface.read(index, into: &space)
      {
        count += frame.count
        frames.append(NetworkFrame(frame, header: VirtioNetHeader(header), queue: index))
      }
    } catch {
      return end(link)
    }
    if !frames.isEmpty { offer(frames, of: index, link) }
  }

  /// Hands frames to the card, in order, and keeps those that it refuses.
  private func offer(_ frames: [NetworkFrame], of index: Int, _ link: NetworkLink) {
    let wasRefused = !sources[index].refused.isEmpty
    let all = sources[index].refused + frames
    sources[index].refused = lock.withLock {
      for (place, frame) in all.enumerated() where link.onReceive?(frame) == false {
        return Array(all[place...])
      }
      return []
    }
    if wasRefused != !sources[index].refused.isEmpty { watch(index, link) }
  }

  /// What the process at the other end writes to its standard error.
  private func listen(_ link: NetworkLink) {
    guard let complaints = link.complaints else { return }
    if let message = try? complaints.receive(capacity: 4096, blocking: false), !message.isEnd {
      complaint = (complaint + message.bytes).suffix(Self.mostComplaint)
    } else {
      poller.remove(complaints.descriptor)
    }
  }

  private func end(_ link: NetworkLink) {
    for source in sources { poller.remove(source.descriptor) }
    listen(link)
    let lines = String(decoding: complaint, as: UTF8.self).split(separator: "\n")
    let last = lines.last { !$0.contains("syslog") }.map { ": \($0)" } ?? ""
    StandardError.report("\(link.name) ended, and with it the network card's link\(last)")
    for index in sources.indices { sources[index].refused = [] }
    lock.withLock {
      link.isConnected = false
      link.onConnectionChange?()
    }
  }
}
