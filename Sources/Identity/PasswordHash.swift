import Foundation
import _CryptoExtras

/// A salted scrypt hash of a password, with the parameters that made it, as one
/// line of text: `$scrypt$ln=15,r=8,p=1$SALT$HASH` (the PHC string format).
struct PasswordHash: Hashable, Sendable {
  struct Parameters: Hashable, Sendable {
    /// log2 of scrypt's N.
    var logRounds: Int
    /// scrypt's r.
    var blockSize: Int
    /// scrypt's p.
    var parallelism: Int

    /// 32 MiB and some 80 ms for each guess.
    static let standard = Parameters(logRounds: 15, blockSize: 8, parallelism: 1)

    /// Whether a stored hash may ask for this much work and memory (1 GiB at most).
    var isSensible: Bool {
      (10...20).contains(logRounds) && (1...8).contains(blockSize) && (1...4).contains(parallelism)
    }
  }

  static let hashLength = 32
  static let saltLength = 16

  let parameters: Parameters
  let salt: [UInt8]
  let hash: [UInt8]

  /// Hashes a password. The password must not be empty.
  init(of password: [UInt8], parameters: Parameters = .standard, salt: [UInt8]) throws {
    self.parameters = parameters
    self.salt = salt
    hash = try KDF.Scrypt.deriveKey(
      from: password, salt: salt, outputByteCount: Self.hashLength,
      rounds: 1 << parameters.logRounds, blockSize: parameters.blockSize,
      parallelism: parameters.parallelism
    ).withUnsafeBytes { bytes in
      // SAFETY: the key's bytes are copied within the call.
      Array(bytes)
    }
  }

  /// Reads the line; `nil` when it is none that this program wrote.
  init?(line: String) {
    let fields = line.split(separator: "$", omittingEmptySubsequences: false)
    guard fields.count == 5, fields[0].isEmpty, fields[1] == "scrypt",
      let parameters = Parameters(text: fields[2]), parameters.isSensible,
      let salt = Data(base64Encoded: String(fields[3])), salt.count == Self.saltLength,
      let hash = Data(base64Encoded: String(fields[4])), hash.count == Self.hashLength
    else { return nil }
    self.parameters = parameters
    self.salt = Array(salt)
    self.hash = Array(hash)
  }

  var line: String {
    let salt = Data(salt).base64EncodedString()
    let hash = Data(hash).base64EncodedString()
    return "$scrypt$\(parameters.text)$\(salt)$\(hash)"
  }

  /// Whether `password` made this hash. The work done does not depend on the answer.
  func matches(_ password: [UInt8]) -> Bool {
    let attempt = password.isEmpty ? [0] : password
    guard let other = try? PasswordHash(of: attempt, parameters: parameters, salt: salt)
    else { return false }
    return constantTimeEqual(other.hash, hash) && !password.isEmpty
  }
}

extension PasswordHash.Parameters {
  fileprivate var text: String { "ln=\(logRounds),r=\(blockSize),p=\(parallelism)" }

  fileprivate init?(text: Substring) {
    var values: [Substring: Int] = [:]
    for pair in text.split(separator: ",") {
      let parts = pair.split(separator: "=", maxSplits: 1)
      guard parts.count == 2, let value = Int(parts[1]) else { return nil }
      values[parts[0]] = value
    }
    guard let rounds = values["ln"], let block = values["r"], let lanes = values["p"],
      values.count == 3
    else { return nil }
    self.init(logRounds: rounds, blockSize: block, parallelism: lanes)
  }
}

/// Compares in a time that depends on the lengths alone.
func constantTimeEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
  guard left.count == right.count else { return false }
  var difference: UInt8 = 0
  for index in left.indices { difference |= left[index] ^ right[index] }
  return difference == 0
}
