import CVNCClient
import Foundation

/// A viewer for measurements: libvncclient, so that the client costs as little
/// as it can and is the same for every server.
///
/// Used from one thread; the callbacks run inside `pump`.
final class VNCPeer {
  enum Encoding: String, CaseIterable { case raw, tight, zrle }

  private let client: UnsafeMutablePointer<rfbClient>
  private let encodingName: UnsafeMutablePointer<CChar>?
  private let encoding: Encoding
  /// Updates received in full since the connection was made.
  private(set) var updates = 0

  /// Connects to `host`:`port`, or throws what went wrong. `ticket` answers VncAuth.
  init(host: String, port: Int, encoding: Encoding, ticket: String? = nil) throws {
    guard let client = rfbGetClient(8, 3, 4) else { throw BenchError("no memory for a viewer") }
    self.client = client
    self.encoding = encoding
    encodingName = strdup(encoding == .raw ? "raw" : "\(encoding.rawValue) copyrect raw")
    client.pointee.serverHost = strdup(host)
    client.pointee.serverPort = Int32(port)
    client.pointee.canHandleNewFBSize = 1
    client.pointee.appData.encodingsString = UnsafePointer(encodingName)
    client.pointee.appData.enableJPEG = 1
    client.pointee.appData.qualityLevel = 6
    client.pointee.appData.compressLevel = 1
    // The server's own pixel layout: no conversion on either side.
    client.pointee.format.redShift = 16
    client.pointee.format.greenShift = 8
    client.pointee.format.blueShift = 0
    if let ticket {
      Self.password = ticket
      var schemes = [UInt32(rfbVncAuth)]
      SetClientAuthSchemes(client, &schemes, 1)
    }
    client.pointee.GetPassword = { _ in strdup(VNCPeer.password) }
    client.pointee.FinishedFrameBufferUpdate = { client in
      VNCPeer.peer(of: client)?.updates += 1
    }
    // SAFETY: an unretained reference; the client is destroyed in this object's
    // deinit, after which no callback can run.
    rfbClientSetClientData(client, &Self.tag, Unmanaged.passUnretained(self).toOpaque())
    // On failure libvncclient has freed the client itself.
    guard rfbInitClient(client, nil, nil) != 0 else {
      throw BenchError("no RFB session with \(host):\(port)")
    }
  }

  deinit {
    free(client.pointee.frameBuffer)
    rfbClientCleanup(client)
    free(encodingName)
  }

  // SAFETY: only its address is used, as libvncclient's key for our data.
  nonisolated(unsafe) private static var tag: UInt8 = 0
  // SAFETY: set before a connection is made and read while it is; one thread.
  nonisolated(unsafe) private static var password = ""

  private static func peer(of client: UnsafeMutablePointer<rfbClient>?) -> VNCPeer? {
    guard let data = rfbClientGetClientData(client, &tag) else { return nil }
    // SAFETY: what init stored; the object outlives the client.
    return Unmanaged<VNCPeer>.fromOpaque(data).takeUnretainedValue()
  }

  var width: Int { Int(client.pointee.width) }
  var height: Int { Int(client.pointee.height) }

  /// Waits up to `microseconds` for a message and handles what came.
  /// Returns whether something was handled; throws when the server hung up.
  @discardableResult
  func pump(microseconds: UInt32) throws -> Bool {
    // What libvncclient has read already is not announced by the socket again.
    let ready = client.pointee.buffered > 0 ? 1 : WaitForMessage(client, microseconds)
    guard ready >= 0 else { throw BenchError("the server closed the connection") }
    guard ready > 0 else { return false }
    guard HandleRFBServerMessage(client) != 0 else {
      throw BenchError("the server closed the connection")
    }
    return true
  }

  /// Pumps until `condition` holds; throws after `seconds`.
  func pump(until what: String, seconds: Double = 10, _ condition: () -> Bool) throws {
    let deadline = Clock.seconds + seconds
    while !condition() {
      guard Clock.seconds < deadline else { throw BenchError("gave up waiting for \(what)") }
      try pump(microseconds: 100_000)
    }
  }

  /// The pixel at (`x`, `y`) as 0xRRGGBB.
  func pixel(_ x: Int, _ y: Int) -> UInt32 {
    guard x < width, y < height, let bytes = client.pointee.frameBuffer else { return 0 }
    // SAFETY: libvncclient's frame buffer holds width * height pixels of 4 bytes.
    return UnsafeRawPointer(bytes).load(fromByteOffset: (y * width + x) * 4, as: UInt32.self)
      & 0xFF_FFFF
  }

  /// Takes back that it understands the extended message of a new size: libvncclient 0.9.14
  /// passes over a screen with the number 0, which is QEMU's.
  func understandPlainSizesOnly() throws {
    let jpegQuality6: Int32 = -26
    let compression1: Int32 = -255
    let (newSize, lastRectangle): (Int32, Int32) = (-223, -224)
    let encodings: [Int32] =
      switch encoding {
      case .raw: [0, newSize]
      case .tight: [7, 1, 0, compression1, jpegQuality6, newSize, lastRectangle]
      case .zrle: [16, 1, 0, newSize]
      }
    // SetEncodings of RFC 6143, section 7.5.2.
    var message: [UInt8] = [2, 0, 0, UInt8(encodings.count)]
    for encoding in encodings {
      message += stride(from: 24, through: 0, by: -8).map {
        UInt8(truncatingIfNeeded: encoding >> $0)
      }
    }
    // SAFETY: the bytes are read within the call.
    let sent = message.withUnsafeBytes {
      WriteToRFBServer(client, $0.bindMemory(to: CChar.self).baseAddress, UInt32($0.count))
    }
    guard sent != 0 else { throw BenchError("the server closed the connection") }
  }

  func sendKey(_ keysym: UInt32, pressed: Bool) {
    SendKeyEvent(client, keysym, pressed ? 1 : 0)
  }

  func sendPointer(x: Int, y: Int, buttons: Int32 = 0) {
    SendPointerEvent(client, Int32(x), Int32(y), buttons)
  }

  /// Bytes received on the connection so far, from the kernel's TCP_INFO.
  var bytesReceived: UInt64 {
    var info = [UInt8](repeating: 0, count: 256)
    var length = socklen_t(info.count)
    guard getsockopt(client.pointee.sock, Int32(IPPROTO_TCP), TCP_INFO, &info, &length) == 0 else {
      return 0
    }
    // struct tcp_info (linux/tcp.h): tcpi_bytes_received is at byte 128.
    return info[128..<136].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}
