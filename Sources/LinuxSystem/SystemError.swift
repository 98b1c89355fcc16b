import CLinux
import CarrelBase
import Glibc

/// A system call that failed, on which object, and why.
public struct SystemError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case notFound
    case permissionDenied
    case alreadyExists
    case busy
    case noSpace
    case disconnected
    case wouldBlock
    case interrupted
    case addressInUse
    case other
  }

  public let kind: Kind
  public let code: Int32
  public let context: String
  public var cause: (any Error)? { nil }

  /// - Parameters:
  ///   - code: the positive `errno`.
  ///   - operation: what was being done to what ("open /dev/kvm").
  public init(code: Int32, _ operation: String) {
    self.code = code
    kind = Self.kind(of: code)
    context = "\(operation): \(Self.message(of: code))"
  }

  private static func kind(of code: Int32) -> Kind {
    switch code {
    case ENOENT, ENOTDIR, ESRCH, ENODEV, ENXIO: .notFound
    case EACCES, EPERM, EROFS: .permissionDenied
    case EEXIST: .alreadyExists
    case EBUSY, ETXTBSY: .busy
    case ENOSPC, EDQUOT, EFBIG: .noSpace
    case EPIPE, ECONNRESET, ECONNREFUSED, ENOTCONN, ECONNABORTED: .disconnected
    case EAGAIN: .wouldBlock
    case EINTR: .interrupted
    case EADDRINUSE: .addressInUse
    default: .other
    }
  }

  private static func message(of code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard clinux_error_text(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    let text = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    return String(decoding: text, as: UTF8.self)
  }
}

/// Turns a C result (a value, or minus errno) into a value or an error.
@discardableResult
package func check<Value: BinaryInteger>(
  _ result: Value, _ operation: @autoclosure () -> String
) throws(SystemError) -> Value {
  guard result < 0 else { return result }
  throw SystemError(code: Int32(truncatingIfNeeded: -Int64(result)), operation())
}
