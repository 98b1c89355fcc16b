import CDeflate
import CVNCServer
import DeviceModel
import Display
import Glibc
import LinuxSystem

/// libvncserver with one viewer, used as handshake and encoder, on one thread.
///
/// libvncserver reads a viewer's messages from its socket, blocking, and writes
/// updates to the same one. Here it never reads the viewer: the session parses
/// what comes in and feeds it whole messages through a private socket pair, so it
/// neither waits for half a message nor sees one that was not checked. For the
/// time of an update its socket is the viewer's own, so pixels take no detour.
final class LibVNCClient {
  /// What libvncserver's hooks report while a message is fed.
  enum Report {
    case clipboard(String)
    case power(DisplayLinkMessage.PowerRequest)
    case desktopSize(Int, Int)
  }

  /// Guards libvncserver's own global lists (screens, handshakes, extensions).
  private static let library = Guarded<Bool>(false)

  private let screen: rfbScreenInfoPtr
  private var client: rfbClientPtr?
  private let viewer: Int32
  private let feed: UnixSocket
  private let end: Int32
  private let name: UnsafeMutablePointer<CChar>?
  fileprivate var reports: [Report] = []

  /// - Parameter viewer: the viewer's socket, for updates; stays the caller's.
  init(viewer: FileDescriptor, frame: Frame, name: String) throws(SystemError) {
    let (feed, end) = try UnixSocket.pair(kind: .stream)
    let screen = Self.library.withLock { isReady in
      if !isReady { rfbLogEnable(0) }
      isReady = true
      return rfbGetScreen(nil, nil, Int32(frame.width), Int32(frame.height), 8, 3, 4)
    }
    guard let screen else { throw SystemError(code: ENOMEM, "set up an RFB screen") }
    self.screen = screen
    self.viewer = viewer.raw
    self.feed = feed
    // libvncserver closes its end itself.
    self.end = dup(end.descriptor.raw)
    self.name = strdup(name)
    configure()
    setFrame(frame)
  }

  deinit {
    Self.library.withLock { _ in
      // Hand back the end of the pair: the viewer's socket is not libvncserver's.
      if let client, client.pointee.sock != -1 { client.pointee.sock = end }
      if client == nil { close(end) }
      screen.pointee.cursor = nil
      rfbScreenCleanup(screen)
    }
    free(name)
  }

  private func configure() {
    screen.pointee.desktopName = UnsafePointer(name)
    screen.pointee.deferUpdateTime = 0
    screen.pointee.deferPtrUpdateTime = 0
    screen.pointee.maxRectsPerUpdate = 0
    screen.pointee.alwaysShared = -1
    screen.pointee.permitFileTransfer = 0
    screen.pointee.cursor = nil
    screen.pointee.maxClientWait = 2000
    screen.pointee.xvpHook = { client, _, code in
      guard let owner = LibVNCClient.owner(of: client) else { return 0 }
      switch Int32(code) {
      case rfbXvp_Shutdown: owner.reports.append(.power(.shutdown))
      case rfbXvp_Reboot: owner.reports.append(.power(.reboot))
      case rfbXvp_Reset: owner.reports.append(.power(.reset))
      default: return 0
      }
      return -1
    }
    screen.pointee.setXCutTextUTF8 = { text, length, client in
      guard let owner = LibVNCClient.owner(of: client), let text, length > 0 else { return }
      // SAFETY: libvncserver passes `length` bytes at `text`.
      let bytes = UnsafeRawBufferPointer(start: text, count: Int(length))
      let string = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      owner.reports.append(.clipboard(string))
    }
    screen.pointee.setDesktopSizeHook = { width, height, _, _, client in
      guard let owner = LibVNCClient.owner(of: client) else {
        return rfbExtDesktopSize_ResizeProhibited
      }
      let sides = 1...Int32(DisplayLinkMessage.maximumSide)
      guard sides.contains(width) && sides.contains(height) else {
        return rfbExtDesktopSize_InvalidScreenLayout
      }
      owner.reports.append(.desktopSize(Int(width), Int(height)))
      // Refused for now: should the guest follow, the new size is announced then.
      return rfbExtDesktopSize_ResizeProhibited
    }
  }

  private static func owner(of client: rfbClientPtr?) -> LibVNCClient? {
    guard let data = client?.pointee.clientData else { return nil }
    // SAFETY: `clientData` is set below to the owner, which outlives its client.
    return Unmanaged<LibVNCClient>.fromOpaque(data).takeUnretainedValue()
  }

  // MARK: State

  var isOpen: Bool { client.map { $0.pointee.sock != -1 } ?? true }

  /// Whether the handshake is over.
  var isInitialised: Bool { client.map { $0.pointee.state == RFB_NORMAL } ?? false }

  var understandsDesktopSize: Bool { client.map { $0.pointee.useNewFBSize != 0 } ?? false }

  /// Whether the viewer can be told to copy: it has the picture as it is here, and
  /// nothing is painted over it.
  var mayCopy: Bool {
    guard let client else { return false }
    return client.pointee.useCopyRect != 0 && !paintsCursor
      && sraRgnEmpty(client.pointee.modifiedRegion) != 0
      && sraRgnEmpty(client.pointee.copyRegion) != 0
      && (client.pointee.useNewFBSize == 0 || client.pointee.newFBSizePending == 0)
  }

  /// Whether a cursor has to be painted into the picture for this viewer.
  var paintsCursor: Bool {
    guard let client else { return false }
    return client.pointee.enableCursorShapeUpdates == 0 && screen.pointee.cursor != nil
  }

  /// Whether pixels go out as JPEG.
  var isLossy: Bool {
    guard let client else { return false }
    return client.pointee.preferredEncoding == RFBNumbers.Encoding.tight
      && client.pointee.turboQualityLevel != -1
  }

  /// Whether an update would say anything: a cursor, a size, or pixels that the
  /// viewer asked for.
  var hasPending: Bool {
    guard let client else { return false }
    let record = client.pointee
    return (record.enableCursorShapeUpdates != 0 && record.cursorWasChanged != 0)
      || (record.useNewFBSize != 0 && record.newFBSizePending != 0)
      || (paintsCursor
        && (record.cursorX != screen.pointee.cursorX
          || record.cursorY != screen.pointee.cursorY))
      || isRequested(record.modifiedRegion) || isRequested(record.copyRegion)
  }

  /// Whether the viewer asked for any pixel of `region`.
  func isRequested(_ region: Region) -> Bool {
    region.rects.contains { rect in
      var result = false
      withSraRegion(rect) { result = isRequested($0) }
      return result
    }
  }

  private func isRequested(_ region: sraRegionPtr?) -> Bool {
    guard let client, let both = sraRgnCreateRgn(region) else { return false }
    defer { sraRgnDestroy(both) }
    return sraRgnAnd(both, client.pointee.requestedRegion) != 0
  }

  /// Whether the viewer waits for an update.
  var isRequested: Bool {
    guard let client else { return false }
    return sraRgnEmpty(client.pointee.requestedRegion) == 0
  }

  /// Bytes of updates encoded so far, as libvncserver counts them (it wraps).
  var bytesSent: Int { client.map { Int(rfbStatGetSentBytes($0)) } ?? 0 }

  // MARK: Messages

  /// Feeds one whole message; returns what libvncserver says to the viewer, and
  /// what its hooks reported.
  func feed(_ message: [UInt8]) throws(SystemError) -> (answer: [UInt8], reports: [Report]) {
    try feed.send(message)
    Self.library.withLock { _ in
      if let client {
        if client.pointee.sock != -1 { rfbProcessClientMessage(client) }
      } else {
        start()
      }
    }
    defer { reports = [] }
    return (drain(), reports)
  }

  /// Makes the client once the viewer's version waits in the feed: libvncserver
  /// looks there for a WebSocket handshake, and would wait for one.
  private func start() {
    guard let made = rfbNewClient(screen, end) else { return }
    // SAFETY: this object outlives the client that it makes here.
    made.pointee.clientData = Unmanaged.passUnretained(self).toOpaque()
    client = made
    // Its greeting: the session greeted the viewer already.
    _ = try? feed.receive(capacity: 12, blocking: false)
    rfbProcessClientMessage(made)
  }

  private func drain() -> [UInt8] {
    var bytes: [UInt8] = []
    while let part = try? feed.receive(capacity: 65536, blocking: false), !part.bytes.isEmpty {
      bytes += part.bytes
    }
    return bytes
  }

  // MARK: Picture

  /// Encodes from this frame from now on. The frame stays the caller's to keep.
  func setFrame(_ frame: Frame) {
    let isNew = client != nil
    screen.pointee.width = Int32(frame.width)
    screen.pointee.height = Int32(frame.height)
    screen.pointee.paddedWidthInBytes = Int32(frame.width * 4)
    screen.pointee.sizeInBytes = Int32(frame.width * frame.height * 4)
    screen.pointee.bitsPerPixel = 32
    screen.pointee.depth = 24
    screen.pointee.serverFormat.bitsPerPixel = 32
    screen.pointee.serverFormat.depth = 24
    screen.pointee.serverFormat.redShift = 16
    screen.pointee.serverFormat.greenShift = 8
    screen.pointee.serverFormat.blueShift = 0
    // SAFETY: the caller keeps the frame until it sets another one.
    screen.pointee.frameBuffer = UnsafeMutableRawPointer(frame.pixels)
      .assumingMemoryBound(to: CChar.self)
    screen.pointee.cursorX = min(screen.pointee.cursorX, Int32(frame.width - 1))
    screen.pointee.cursorY = min(screen.pointee.cursorY, Int32(frame.height - 1))
    guard isNew, let client else { return }
    sraRgnMakeEmpty(client.pointee.modifiedRegion)
    sraRgnMakeEmpty(client.pointee.copyRegion)
    client.pointee.copyDX = 0
    client.pointee.copyDY = 0
    client.pointee.cursorX = screen.pointee.cursorX
    client.pointee.cursorY = screen.pointee.cursorY
    markModified(Region(frame.bounds))
    if client.pointee.useNewFBSize != 0 { client.pointee.newFBSizePending = -1 }
  }

  /// What is to be sent as pixels.
  var modified: Region {
    guard let client, let iterator = sraRgnGetIterator(client.pointee.modifiedRegion) else {
      return Region()
    }
    var region = Region()
    var rect = sraRect()
    while sraRgnIteratorNext(iterator, &rect) != 0 {
      region.formUnion(
        Rect(
          x: Int(rect.x1), y: Int(rect.y1), width: Int(rect.x2 - rect.x1),
          height: Int(rect.y2 - rect.y1)))
    }
    sraRgnReleaseIterator(iterator)
    return region
  }

  func markModified(_ region: Region) {
    guard let client else { return }
    for rect in region.rects {
      withSraRegion(rect) { sraRgnOr(client.pointee.modifiedRegion, $0) }
    }
  }

  /// The viewer may make `region` itself from its pixels (dx, dy) away; whatever
  /// else is pending goes out after that, so none may be.
  func scheduleCopy(_ region: Region, dx: Int, dy: Int) {
    guard let client else { return }
    for rect in region.rects {
      withSraRegion(rect) { sraRgnOr(client.pointee.copyRegion, $0) }
    }
    client.pointee.copyDX = Int32(dx)
    client.pointee.copyDY = Int32(dy)
  }

  /// The viewer asks for pixels of `rect`.
  func request(_ rect: Rect, incremental: Bool) {
    guard let client else { return }
    let bounds = Rect(
      x: 0, y: 0, width: Int(screen.pointee.width), height: Int(screen.pointee.height))
    let area = rect.intersection(bounds)
    client.pointee.readyForSetColourMapEntries = -1
    guard !area.isEmpty else { return }
    withSraRegion(area) { region in
      if !incremental {
        sraRgnOr(client.pointee.modifiedRegion, region)
        _ = sraRgnSubtract(client.pointee.copyRegion, region)
        if client.pointee.useExtDesktopSize != 0 { client.pointee.newFBSizePending = -1 }
      }
      sraRgnOr(client.pointee.requestedRegion, region)
    }
  }

  /// Continuous updates begin or end: what was requested before counts no more.
  func forgetRequests() {
    if let client { sraRgnMakeEmpty(client.pointee.requestedRegion) }
  }

  private func withSraRegion(_ rect: Rect, _ body: (sraRegionPtr) -> Void) {
    guard
      let region = sraRgnCreateRect(
        Int32(rect.x), Int32(rect.y), Int32(rect.x + rect.width), Int32(rect.y + rect.height))
    else { return }
    body(region)
    sraRgnDestroy(region)
  }

  /// Sends what is pending and requested to the viewer, blocking while the
  /// viewer's socket is full.
  ///
  /// - Parameter lossless: leaves JPEG out.
  /// - Returns: `false` when the connection is broken.
  func sendUpdate(lossless: Bool) -> Bool {
    guard let client, client.pointee.sock != -1 else { return false }
    let quality = (client.pointee.turboQualityLevel, client.pointee.tightQualityLevel)
    if lossless { (client.pointee.turboQualityLevel, client.pointee.tightQualityLevel) = (-1, -1) }
    // For the ZRLE stream, should it begin now.
    carrel_set_default_deflate_level(Int32(clamping: client.pointee.zlibCompressLevel))
    // A copy that libvncserver may close without closing the session's.
    client.pointee.sock = dup(viewer)
    let sent = rfbSendFramebufferUpdate(client, client.pointee.modifiedRegion) != 0
    if client.pointee.sock != -1 {
      close(client.pointee.sock)
      client.pointee.sock = end
    }
    (client.pointee.turboQualityLevel, client.pointee.tightQualityLevel) = quality
    return sent && client.pointee.sock != -1
  }

  // MARK: Cursor

  /// Shows this pointer, or none.
  func setCursor(_ image: CursorImage) {
    let old = screen.pointee.cursor
    screen.pointee.cursor = image.isHidden ? nil : RichCursor.make(image)
    if let old { rfbFreeCursor(old) }
    client?.pointee.cursorWasChanged = -1
  }

  /// Where the viewer's pointer is, for viewers that do not draw it.
  func movePointer(x: Int, y: Int) {
    screen.pointee.cursorX = Int32(clamping: x)
    screen.pointee.cursorY = Int32(clamping: y)
    if !paintsCursor, let client {
      client.pointee.cursorX = screen.pointee.cursorX
      client.pointee.cursorY = screen.pointee.cursorY
    }
  }
}
