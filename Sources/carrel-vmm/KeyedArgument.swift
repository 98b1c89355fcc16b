import ArgumentParser
import CarrelBase

/// An option's argument of the form `key=value,key=value`; a comma in a value is doubled.
struct KeyedArgument {
  private var values: [String: String] = [:]
  private let form: String

  /// - Parameters:
  ///   - what: the argument describes, for errors.
  ///   - form: as it should be, for errors.
  init(_ argument: String, _ keys: [String], of what: String, form: String) throws {
    try self.init(parts: OptionText.parts(of: argument)[...], keys, of: what, form: form)
  }

  /// - Parameter parts: of an argument that begins with something else.
  init(parts: ArraySlice<String>, _ keys: [String], of what: String, form: String) throws {
    self.form = form
    for part in parts {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2, keys.contains(String(pair[0])) else {
        throw ValidationError("there is no \(what) option '\(part)'; give \(form).")
      }
      values[String(pair[0])] = String(pair[1])
    }
  }

  subscript(key: String) -> String? { values[key] }

  /// The value of a key that may not be left out, nor be empty.
  func path(_ key: String, or problem: String) throws -> String {
    guard let value = values[key], !value.isEmpty else { throw lacks(problem) }
    return value
  }

  func lacks(_ problem: String) -> ValidationError {
    ValidationError("\(problem): give \(form).")
  }
}
