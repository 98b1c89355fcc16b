import CNettle
import RFB

/// RFB's cryptography, from nettle's DES and the kernel's random numbers.
public struct SystemCryptography: Cryptography {
  private static let blockLength = 8

  public init() {}

  public func randomBytes(_ count: Int) -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    return (0..<max(0, count)).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
  }

  public func vncResponse(challenge: [UInt8], password: [UInt8]) -> [UInt8] {
    let key = Self.key(password)
    // DES works on whole blocks; a challenge is two of them.
    let length = challenge.count / Self.blockLength * Self.blockLength
    var response = [UInt8](repeating: 0, count: length)
    var context = des_ctx()
    // Weak keys (an empty password) are reported and used nevertheless.
    _ = nettle_des_set_key(&context, key)
    nettle_des_encrypt(&context, length, &response, challenge)
    return response
  }

  /// The first eight bytes of the password, padded with zeros, each with its bits
  /// mirrored: VNC authentication numbers the bits of its key the other way round.
  private static func key(_ password: [UInt8]) -> [UInt8] {
    (0..<blockLength).map { index in
      index < password.count ? password[index].bitsMirrored : 0
    }
  }
}

extension UInt8 {
  fileprivate var bitsMirrored: UInt8 {
    (0..<8).reduce(0) { $0 | ((self >> UInt8($1)) & 1) << UInt8(7 - $1) }
  }
}
